"""The boundaries between the admin API and whatever keeps the runs, episodes and workers."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Generic, Protocol, Self, TypeVar

from google.protobuf.message import Message

from pairloop.admin.v1.admin_pb2 import AuditEntry as AuditRecord
from pairloop.admin.v1.admin_pb2 import (
    Change,
    Curve,
    DeadLetter,
    Episode,
    GetLedgerProofResponse,
    Pair,
    Run,
    Worker,
    WorkerKind,
)

T = TypeVar("T")


MESSAGE_BYTES = 3_500_000
"""Of an answer: a client takes 4 MB in one message."""


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


@dataclass(frozen=True)
class Asked:
    """A change that a run itself carries out, in its process."""

    method: str
    """Such as "PauseRun"."""
    request: Message
    """Of that method."""
    change: Change

    @property
    def what(self) -> str:
        """Equal for equal changes, whoever asks for them, when and why."""
        bare = type(self.request)()
        bare.CopyFrom(self.request)
        for name in ("run", "reason", "request_id", "actor"):
            bare.ClearField(name)
        return f"{self.method} {bare.SerializeToString(deterministic=True).hex()}"


@dataclass(frozen=True)
class Page(Generic[T]):
    """A part of a long list."""

    items: Sequence[T]
    next: str
    """Token of the page that follows; "" where there is none. A page may be short before it."""


class Runs(Protocol):
    """Every run that a server answers for. Every method may raise UnreachableError."""

    async def list(self) -> Sequence[Run]:
        """The latest first."""

    async def find(self, run: str) -> Run:
        """By id or name; "" for the one there is. Raises UnknownRunError."""

    async def episodes(self, run: Run) -> "Episodes":
        """Raises StateError for a run that has none."""

    async def workers(self, run: Run) -> Sequence[Worker]:
        """Every worker, by kind; of another process as it said some seconds ago."""

    async def carry_out(self, run: Run, asked: Asked) -> str:
        """Let the run do it, once for its request id; what there is to say of it.

        Raises StateError when the run refuses, or is not there and it cannot wait until it is.
        """

    async def audit(self, entry: AuditEntry) -> None:
        """Keep it."""

    async def audited(self, run: str, size: int, token: str) -> "Page[AuditRecord]":
        """What was kept of a run, by its id, or of every run ("").

        Raises UnknownPageError.
        """

    def records(self, run: Run) -> "Records":
        """What it has written into its folder."""


class Records(Protocol):
    """What a run has written into its folder. Every method raises StateError where that is not
    visible, or holds what may not be read."""

    async def pairs(self, episode: int, size: int, token: str) -> "Page[Pair]":
        """In the order they are trained, 0 for those of every episode. Raises UnknownPageError."""

    async def config(self) -> str:
        """YAML, without secrets."""

    async def curves(self) -> Sequence[Curve]:
        """Of every stage, in their order."""

    async def proof(self) -> GetLedgerProofResponse:
        """Of every online stage. Raises StateError where nothing can be proven yet."""


class Episodes(Protocol):
    """The episodes of one run. Every method may raise UnreachableError."""

    async def get(self, number: int) -> Episode:
        """One episode, 0 for the current one. Raises UnknownEpisodeError."""

    async def list(self, first: int = 1, count: int | None = None) -> list[Episode]:
        """Every episode, or so many from number `first`, in order."""

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
