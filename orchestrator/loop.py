"""The online loop. Two coroutines are the algorithm.

              credits                              gRPC Score
    sample ----------> [prompts] -> rollout -> [rollouts] -> pairs <-> reward
      ^                               ^                        |
      | published                     | weights, attested      v
    train <--- version e --- learner <---------------------- [pairs]

    coroutine  waits for                                  unblocked by
    sample(e)  weights of episode e - 1 - max_staleness   train
               an end of the pause                        the admin API
               every prompt paired or dropped             the pair workers
    train(e)   episode e sampled                          sample
               weights of episode e                       the learner
               every engine's attestation                 the rollout workers

Episodes are durable: each coroutine looks at an episode's state and goes on from there, so the
loop of a restarted run is the same loop.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from orchestrator.config import EpisodeSettings
from pairloop.admin.v1.admin_pb2 import Episode, EpisodeState
from pairloop.data.v1.rollout_pb2 import Prompt
from services.errors import PairloopError, StallError, StateError
from services.telemetry.events import EpisodeChanged, EpisodeFinished, Event

POLL_S = 0.05

_LEARNER_NAMES = {"margin": "dpo_margin", "pairs": "trained_pairs"}
_AFTER = ("TRAINING", "PUBLISHING", "COMPLETED")


class Episodes(Protocol):
    """The durable states (orchestrator/episodes.py)."""

    async def get(self, number: int) -> Episode:
        """The episode as it is now."""

    async def move(self, number: int, to: str) -> Episode:
        """Change its state, or StateError."""

    async def settle(self, number: int) -> Episode:
        """PAUSING becomes PAUSED once nothing is in flight."""


@dataclass
class Weights:
    """A version as the learner hands it over."""

    version: int
    payload: Any
    metrics: Mapping[str, float]


@dataclass
class Parts:
    """What the loop drives. Each is one call; tests put fakes here."""

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


async def run_episodes(parts: Parts, settings: EpisodeSettings) -> None:
    """Every episode, first to last. The first error of either coroutine ends both."""
    progress = Progress()
    first = await _publish_start(parts, settings, progress)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_sample(parts, settings, progress, first))
            tasks.create_task(_train(parts, settings, progress, first))
    except* PairloopError as errors:
        raise errors.exceptions[0] from None


async def _publish_start(parts: Parts, settings: EpisodeSettings, progress: Progress) -> int:
    """Bring the engines to the learner's version; returns the first episode to run.

    On a fresh run that is version 0, the starting policy, so that even the first sample comes
    from attested weights.
    """
    weights = await parts.weights(0, settings.timeout_s)
    await parts.publish(weights)
    await progress.publish(weights.version)
    if weights.version == 0:
        return 1
    # The learner's checkpoint holds this episode; its last moves may be missing.
    last = await parts.episodes.get(weights.version)
    return weights.version + (1 if _state(last) == "COMPLETED" else 0)


async def _sample(parts: Parts, settings: EpisodeSettings, progress: Progress, first: int) -> None:
    for number in range(first, settings.count + 1):
        wanted = number - 1 - settings.max_staleness
        await progress.until(lambda wanted=wanted: progress.published >= wanted)  # type: ignore[misc]
        started = time.monotonic()
        await sample_episode(parts, settings, number)
        progress.sample_seconds[number] = time.monotonic() - started
        await progress.sample(number)


async def sample_episode(parts: Parts, settings: EpisodeSettings, number: int) -> None:
    """Dispatch an episode's prompts and wait until each is paired or dropped.

    A pause holds it here: PAUSING until nothing is in flight, then PAUSED until resumed.
    Raises StallError when nothing moves for `settings.timeout_s` outside a pause.
    """
    prompts = parts.prompts(number)
    sent, last_seen, last_change = 0, None, time.monotonic()
    while True:
        episode = await parts.episodes.get(number)
        state = _state(episode)
        if state in _AFTER:
            return
        _refuse_ended(episode)
        if state == "PENDING":
            await _try_move(parts.episodes, number, "SAMPLING")
        elif state == "SAMPLING" and sent < len(prompts):
            room = max(0, settings.in_flight - episode.in_flight)
            sent += await parts.dispatch(number, prompts[sent : sent + room])
        elif state == "SAMPLING" and episode.in_flight == 0:
            return
        elif state == "PAUSING":
            await parts.episodes.settle(number)
        seen = _changed(episode, settings.count)
        if seen != last_seen:
            parts.report(seen)
        if seen != last_seen or state == "PAUSED":
            last_seen, last_change = seen, time.monotonic()
        elif time.monotonic() - last_change > settings.timeout_s:
            raise StallError(
                f"episode {number}: nothing moved for {settings.timeout_s:.0f} s with"
                f" {episode.in_flight} prompts in flight ({state}); see the rollout and pair"
                " workers' logs, or raise episodes.timeout_s"
            )
        await asyncio.sleep(POLL_S)


async def _train(parts: Parts, settings: EpisodeSettings, progress: Progress, first: int) -> None:
    for number in range(first, settings.count + 1):
        await progress.until(lambda number=number: progress.sampled >= number)  # type: ignore[misc]
        await train_episode(parts, settings, progress, number)


async def train_episode(
    parts: Parts, settings: EpisodeSettings, progress: Progress, number: int
) -> None:
    """Let the learner train an episode, put its weights on every engine, and close it."""
    episode = await _advance(parts.episodes, number, "TRAINING")
    parts.report(_changed(episode, settings.count))
    started = time.monotonic()
    weights = await parts.weights(number, settings.timeout_s)
    trained = time.monotonic()
    episode = await _advance(parts.episodes, number, "PUBLISHING")
    parts.report(_changed(episode, settings.count))
    await parts.publish(weights)
    episode = await _advance(parts.episodes, number, "COMPLETED")
    parts.report(_changed(episode, settings.count))
    timings = {
        "sample_seconds": progress.sample_seconds.get(number, 0.0),
        "train_seconds": trained - started,
        "sync_seconds": time.monotonic() - trained,
    }
    # The learner's margin is DPO's implicit one; the pairs' is the reward's.
    learner = {_LEARNER_NAMES.get(name, name): value for name, value in weights.metrics.items()}
    parts.report(
        EpisodeFinished(
            number=number,
            total=settings.count,
            version=weights.version,
            pairs=episode.paired,
            dropped=dict(episode.dropped),
            metrics={**learner, **await parts.statistics(number), **timings},
        )
    )
    await progress.publish(number)


async def _advance(episodes: Episodes, number: int, to: str) -> Episode:
    """Move an episode on, once no pause holds it; one that is there or further stays."""
    while True:
        episode = await episodes.get(number)
        state = _state(episode)
        _refuse_ended(episode)
        if state in _AFTER and _AFTER.index(state) >= _AFTER.index(to):
            return episode
        if state == "PAUSING":
            await episodes.settle(number)
        elif state != "PAUSED":
            moved = await _try_move(episodes, number, to)
            if moved is not None:
                return moved
        await asyncio.sleep(POLL_S)


async def _try_move(episodes: Episodes, number: int, to: str) -> Episode | None:
    """The moved episode, or None when a pause or a resume came first."""
    try:
        return await episodes.move(number, to)
    except StateError:
        if _state(await episodes.get(number)) in ("PAUSING", "PAUSED", "PENDING", "SAMPLING"):
            return None
        raise


def _state(episode: Episode) -> str:
    return EpisodeState.Name(episode.state).removeprefix("EPISODE_STATE_")


def _refuse_ended(episode: Episode) -> None:
    if _state(episode) in ("FAILED", "CANCELLED"):
        cause = f": {episode.error}" if episode.error else ""
        raise StateError(f"episode {episode.number} is {_state(episode)}{cause}; start a new run")


def _changed(episode: Episode, total: int) -> EpisodeChanged:
    return EpisodeChanged(
        number=episode.number,
        total=total,
        state=_state(episode),
        prompts=episode.prompts,
        dispatched=episode.dispatched,
        in_flight=episode.in_flight,
        paired=episode.paired,
        dropped=dict(episode.dropped),
        reason=episode.last_change.reason,
    )
