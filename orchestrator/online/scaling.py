"""How many workers of each kind a run wants: asked for by a person, or by a policy in their stead.

A policy (such as one that looks how many prompts wait for how long) would call `scale` as the admin
API does; there is none here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.online.fleet import Fleet
from orchestrator.online.wanted import WantedFile
from pairloop.admin.v1.admin_pb2 import Change, Worker, WorkerKind
from services.errors import StateError, used_before

_MOST = 1000
"""Of a kind: more is a slip of the finger."""


@dataclass(frozen=True)
class Scalable:
    """Workers of one kind."""

    what: str
    """Such as "rollout workers"."""
    fleet: Fleet[Any]
    shortage: Callable[[int], str]
    """What so many more of them wait for, "" for nothing."""


class Scaling:
    """services.admin.ports.Workers of a run."""

    def __init__(
        self,
        kinds: Mapping[WorkerKind, Scalable],
        say: Callable[[str], None],
        file: WantedFile,
    ) -> None:
        """Every fleet wants what was asked for before its orchestrator ended, as `file` has it."""
        self._kinds, self._say, self._file = kinds, say, file
        self._configured = {kind: scaled.fleet.wanted for kind, scaled in kinds.items()}
        self._answered: dict[str, tuple[WorkerKind, int, str]] = {}
        self._drained: dict[str, str] = {}
        for kind, configured in self._configured.items():
            if (count := file.wanted(WorkerKind.Name(kind), configured)) != configured:
                kinds[kind].fleet.scale(count)
                say(f"{count} {kinds[kind].what} wanted, as was asked for before")

    @property
    def kinds(self) -> tuple[WorkerKind, ...]:
        """Those that there are."""
        return tuple(self._kinds)

    def list(self) -> list[Worker]:
        """Every worker, by kind."""
        return [worker for kind in self._kinds.values() for worker in kind.fleet.workers()]

    def scale(self, kind: WorkerKind, count: int, change: Change) -> str:
        """As services.admin.ports.Workers.scale."""
        if answer := self._answered.get(change.request_id):
            if answer[:2] != (kind, count):
                raise used_before(change.request_id)
            return answer[2]
        if (scaled := self._kinds.get(kind)) is None:
            raise StateError(f"this run has no workers of kind {kind}; ask for rollout or pairing")
        if scaled.fleet.over:
            raise StateError(
                f"the run needs no {scaled.what} any more: its last episode is sampled and paired"
            )
        if count > _MOST:
            raise StateError(f"{count} {scaled.what} are too many; ask for {_MOST} at most")
        more = scaled.fleet.scale(count)
        note = scaled.shortage(more) if more > 0 else ""
        try:
            self._file.keep(WorkerKind.Name(kind), self._configured[kind], count)
        except OSError as error:
            lost = f"the same command given again begins with the config's count ({error})"
            note = f"{note}; {lost}" if note else lost
        self._answered[change.request_id] = kind, count, note
        waits = f"; {note}" if note else ""
        self._say(f"{count} {scaled.what} wanted, by {change.actor}: {change.reason}{waits}")
        return note

    def drain(self, name: str, change: Change) -> None:
        """As services.admin.ports.Workers.drain."""
        if (before := self._drained.get(change.request_id)) == name:
            return
        if before is not None or change.request_id in self._answered:
            raise used_before(change.request_id)
        if not any(scaled.fleet.drain(name) for scaled in self._kinds.values()):
            names = ", ".join(worker.name for worker in self.list())
            raise StateError(f"there is no worker {name} that could leave; there are {names}")
        self._drained[change.request_id] = name
        self._say(f"{name} is to leave, by {change.actor}: {change.reason}")
