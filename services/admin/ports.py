"""The boundaries between the admin API and whatever keeps the runs, episodes and workers."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Protocol, Self

from pairloop.admin.v1.admin_pb2 import Change, DeadLetter, Episode, Run, Worker, WorkerKind


@dataclass(frozen=True)
class AuditEntry:
    """One change that was asked for, whatever came of it."""

    time: str
    """UTC, ISO 8601."""
    run: str
    """Its id."""
    method: str
    """Such as "PauseEpisode"."""
    what: str
    """Such as "episode 3" or "rollout=5"."""
    actor: str
    """The owner of the token; without tokens who the caller says it is."""
    peer: str
    reason: str
    request_id: str
    outcome: str
    """"done", or why not."""

    def of(self, outcome: str) -> Self:
        """The same with another outcome."""
        return replace(self, outcome=outcome)

    def fields(self) -> dict[str, str]:
        """By name."""
        return asdict(self)


class Runs(Protocol):
    """Every run that a server answers for. Every method may raise UnreachableError."""

    async def list(self) -> Sequence[Run]:
        """The latest first."""

    async def find(self, run: str) -> Run:
        """By id or name; "" for the one there is. Raises UnknownRunError."""

    async def episodes(self, run: Run) -> "Episodes":
        """Raises StateError for a run that has none."""

    def workers(self, run: Run) -> "Workers":
        """Raises StateError for one whose workers somebody else knows."""

    async def audit(self, entry: AuditEntry) -> None:
        """Keep it."""


class Episodes(Protocol):
    """The episodes of one run. Every method may raise UnreachableError."""

    async def get(self, number: int) -> Episode:
        """One episode, 0 for the current one. Raises UnknownEpisodeError."""

    async def list(self) -> list[Episode]:
        """Every episode, in order."""

    async def pause(self, number: int, change: Change) -> Episode:
        """Pause an episode, 0 for the current or next one; idempotent by change.request_id.

        Raises StateError when its state does not allow it, UnknownEpisodeError.
        """

    async def resume(self, number: int, change: Change) -> Episode:
        """Resume an episode, 0 for the paused one; idempotent by change.request_id.

        Raises StateError when its state does not allow it, UnknownEpisodeError.
        """

    async def cancel(self, number: int, change: Change) -> Episode:
        """End an episode, and its run with it; idempotent by change.request_id.

        Raises StateError when its state does not allow it, UnknownEpisodeError.
        """

    async def dead_letters(self, number: int) -> Sequence[DeadLetter]:
        """The prompts that kept failing, oldest first, 0 for every episode's.

        Raises UnknownEpisodeError.
        """

    async def replay(self, number: int) -> int:
        """Try them again, 0 for those of every episode that is still sampled; how many.

        Raises StateError when the episode's state does not allow it, UnknownEpisodeError.
        """


class Workers(Protocol):
    """The workers of one run: whatever decides how many there are, a person or a policy, asks here.

    Raises StateError while the run starts or ends.
    """

    def list(self) -> Sequence[Worker]:
        """Every worker, by kind."""

    def scale(self, kind: WorkerKind, count: int, change: Change) -> str:
        """Have so many of a kind, 1 or more; idempotent by change.request_id.

        Returns what there is to say of it, such as that the cluster has no room for them yet.
        """

    def drain(self, name: str, change: Change) -> None:
        """Let this one finish what it holds and leave; another takes its place. Names are never
        used twice, so the same change again does nothing. Raises StateError when it is not there.
        """
