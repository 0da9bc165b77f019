"""What the loop drives, each as one call: real services in a run, fakes in tests."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pairloop.admin.v1.admin_pb2 import Change, Episode
from pairloop.data.v1.rollout_pb2 import Prompt
from services.states import State
from services.telemetry.record.events import Event

_LOOK_S = 1.0


class Episodes(Protocol):
    """The durable states (orchestrator/episodes.py)."""

    async def get(self, number: int) -> Episode:
        """The episode as it is now."""

    async def move(self, number: int, to: State, change: Change | None = None) -> Episode:
        """Change its state, or StateError."""


@dataclass(frozen=True)
class Weights:
    """A version as the learner hands it over."""

    version: int
    payload: Any
    """What `publish` takes; the loop does not look at it."""
    metrics: Mapping[str, float]
    """Of the training that made it."""


@dataclass
class LoopPorts:
    """Everything outside that the loop touches."""

    stage: str
    """Named by every event of the loop."""
    episodes: Episodes
    prompts: Callable[[int], Awaitable[Sequence[Prompt]]]
    """The prompts of an episode."""
    dispatch: Callable[[int, Sequence[Prompt]], Awaitable[object]]
    """Send these, in order, as far as credits and state allow; none is sent twice."""
    weights: Callable[[int, float], Awaitable[Weights]]
    """The learner's version, at least this one; StallError past so many seconds."""
    publish: Callable[[Weights], Awaitable[None]]
    """To every engine, attested; and into the ledger."""
    statistics: Callable[[int], Awaitable[dict[str, float]]]
    """Of an episode's rewards and pairs."""
    failures: Callable[[int], Awaitable[str]]
    """Why prompts of an episode went to the dead letters, the most frequent cause first."""
    archive: Callable[[int], Awaitable[bool]]
    """Audit the ledger of an episode that is over, and move it out of Redis. False where that fell
    back meanwhile to before the episode's end."""
    report: Callable[[Event], None]
    staleness: Callable[[], int] = lambda: 0
    """Versions that sampling may run ahead of the learner, at this moment."""
    changed: Callable[[float], Awaitable[None]] = asyncio.sleep
    """Between two looks at an episode: until it may have changed, at most so many seconds. What
    changed since the last time counts as well."""
    clock: Callable[[], float] = time.monotonic
    """Seconds; only differences count."""


@dataclass
class Milestones:
    """How far the two coroutines have come: each waits for the other here."""

    published: int = -1
    """The newest version that every engine holds."""
    sampled: int = 0
    """The last episode whose prompts are all paired or dropped."""
    sample_seconds: dict[int, float] = field(default_factory=dict)
    """Of each sampled episode."""
    _passed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def mark_published(self, version: int) -> None:
        """The weights of this version are on every engine."""
        async with self._passed:
            self.published = version
            self._passed.notify_all()

    async def mark_sampled(self, episode: int, seconds: float) -> None:
        """Every prompt of this episode is paired or dropped."""
        async with self._passed:
            self.sampled = episode
            self.sample_seconds[episode] = seconds
            self._passed.notify_all()

    async def until_published(self, version: Callable[[], int]) -> None:
        """Wait for this version or a later one, which may become another one meanwhile. The
        deadlines of `train` bound the wait."""
        async with self._passed:
            while self.published < version():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._passed.wait(), _LOOK_S)

    async def until_sampled(self, episode: int) -> None:
        """Wait for this episode or a later one. The deadlines of `sample` bound the wait."""
        async with self._passed:
            await self._passed.wait_for(lambda: self.sampled >= episode)
