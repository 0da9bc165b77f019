"""The boundaries of the online learner: the queues it reads and the way its weights go out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pairloop.data.v1.pair_pb2 import PreferencePair
from services.queues.ledger import LedgerEvent
from services.queues.settings import QueueSettings
from services.weights.manifest import Array, Shared, Tensors


@dataclass(frozen=True)
class Trained:
    """What became of each prompt of an episode, by its id."""

    episode: int
    """0: none yet."""
    trained: Sequence[str] = ()
    """Those whose pair is in a step, in canonical order."""
    dropped: Mapping[str, str] = field(default_factory=dict)
    """The others, with the reason as the ledger has it: "TIE", "TOO_LONG"."""


class Queues(Protocol):
    """The learner's part of a run's queues."""

    async def episode_state(self, episode: int) -> str:
        """Name of the state, "" when the episode is unknown."""

    async def look(self, episode: int) -> tuple[str, dict[str, int]]:
        """At one moment: the state, and dispatched, sampled, paired, trained, dropped:<reason>."""

    async def changed(self, seconds: float) -> None:
        """Until something of the run changes, or so many seconds are over."""

    async def pairs(self, episode: int) -> list[PreferencePair]:
        """The kept pairs of the episode, by prompt index."""

    async def dropped(self, episode: int) -> dict[str, str]:
        """Of the prompts that gave no pair: why, by id."""

    async def ledger(self, episode: int) -> list[LedgerEvent]:
        """What happened to its prompts; nothing once that was put away."""

    async def commit_trained(
        self, episode: int, version: int, trained: Sequence[str], dropped: Mapping[str, str]
    ) -> int:
        """A checkpoint holds the episode, with this of its prompts; idempotent.

        Raises LedgerError when that contradicts what the queues have of it.
        """

    async def close(self) -> None:
        """Let the connection go."""


class Connect(Protocol):
    """Opens the queues of a run."""

    async def __call__(self, url: str, run: str, settings: QueueSettings, epoch: int) -> Queues:
        """Raises UnreachableError."""


@dataclass(frozen=True)
class WeightVersion:
    """Weights to hand out, as the engines get them and as they were shared."""

    run: str
    version: int
    """0: the starting policy; e: after episode e."""
    base_version: int
    """What `changed` is counted against; the version itself when there is none before."""
    dtype: str
    """Of the engines: what the policy's float32 weights are rounded to."""
    tensors: Tensors
    """In `dtype` (bfloat16 as bits in uint16), by Hugging Face parameter name; tied ones once."""
    changed: Mapping[str, int]
    """Values of `tensors` whose bits differ from the base version's, by name."""
    canary_tokens: Sequence[int]
    canary_logprobs: Sequence[float]
    """Of canary_tokens[1:], nats: by a float32 forward of `tensors`."""
    canary_tolerance: float
    metrics: Mapping[str, float]
    """Of the episode; empty for version 0."""


class Publisher(Protocol):
    """Where new weights go."""

    def share(self, tensors: Iterable[tuple[str, Array]]) -> Shared:
        """Put a snapshot where other processes read it, in the place of the one before."""

    def __call__(self, version: WeightVersion) -> str:
        """Hand over a version of what was shared last; may be called twice with the same one.

        Returns the digest that engines attest it by, "" where there are none.
        """

    def look(self) -> None:
        """Hand over once more what was handed over last, where that was lost; is asked often."""
