"""What the loop drives, each as one call: real services in a run, fakes in tests."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pairloop.admin.v1.admin_pb2 import Episode
from pairloop.data.v1.rollout_pb2 import Prompt
from services.states import State
from services.telemetry.record.events import Event


class Episodes(Protocol):
    """The durable states (orchestrator/episodes.py)."""

    async def get(self, number: int) -> Episode:
        """The episode as it is now."""

    async def move(self, number: int, to: State) -> Episode:
        """Change its state, or StateError."""


@dataclass
class Weights:
    """A version as the learner hands it over."""

    version: int
    payload: Any
    metrics: Mapping[str, float]


@dataclass
class LoopPorts:
    """What the loop drives. Each is one call; tests put fakes here."""

    stage: str
    """Named by every event of the loop."""
    episodes: Episodes
    prompts: Callable[[int], Sequence[Prompt]]
    """The prompts of an episode."""
    dispatch: Callable[[int, Sequence[Prompt]], Awaitable[int]]
    """Send these, in order, as far as credits and state allow; returns how many are sent now,
    those of an earlier attempt included."""
    weights: Callable[[int, float], Awaitable[Weights]]
    """The learner's version, at least this one; StallError past so many seconds."""
    publish: Callable[[Weights], Awaitable[None]]
    """To every engine, attested; and into the ledger."""
    statistics: Callable[[int], Awaitable[dict[str, float]]]
    """Of an episode's rewards and pairs."""
    report: Callable[[Event], None]


@dataclass
class Progress:
    """How far each coroutine is; the other waits on it."""

    published: int = -1
    sampled: int = 0
    sample_seconds: dict[int, float] = field(default_factory=dict)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def publish(self, version: int) -> None:
        """The weights of this version are on every engine."""
        async with self.changed:
            self.published = version
            self.changed.notify_all()

    async def sample(self, episode: int) -> None:
        """Every prompt of this episode is paired or dropped."""
        async with self.changed:
            self.sampled = episode
            self.changed.notify_all()

    async def until(self, reached: Callable[[], bool]) -> None:
        """Wait for a change that makes it so. The other coroutine's own deadlines bound this."""
        async with self.changed:
            await self.changed.wait_for(reached)
