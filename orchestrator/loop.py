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

from orchestrator.online.ports import LoopPorts, Progress
from orchestrator.online.transitions import (
    POLL_S,
    advance,
    changed,
    refuse_ended,
    try_move,
)
from services.errors import PairloopError, StallError, StateError
from services.queues.settings import EpisodeSettings
from services.states import SAMPLED, State, state_of
from services.telemetry.record.events import EpisodeFinished


async def run_episodes(parts: LoopPorts, settings: EpisodeSettings) -> None:
    """Every episode, first to last. The first error of either coroutine ends both."""
    progress = Progress()
    first = await _publish_start(parts, settings, progress)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_sample(parts, settings, progress, first))
            tasks.create_task(_train(parts, settings, progress, first))
    except* PairloopError as errors:
        raise errors.exceptions[0] from None


async def _publish_start(parts: LoopPorts, settings: EpisodeSettings, progress: Progress) -> int:
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
    if state_of(last) not in SAMPLED:
        raise StateError(
            f"the learner's checkpoint holds episode {weights.version}, which Redis has as"
            f" {state_of(last)}: Redis lost this run. Give it a new name to begin again: name=..."
        )
    return weights.version + (1 if state_of(last) == State.COMPLETED else 0)


async def _sample(
    parts: LoopPorts, settings: EpisodeSettings, progress: Progress, first: int
) -> None:
    for number in range(first, settings.count + 1):
        wanted = number - 1 - settings.max_staleness
        await progress.until(lambda wanted=wanted: progress.published >= wanted)  # type: ignore[misc]
        started = time.monotonic()
        await sample_episode(parts, settings, number)
        progress.sample_seconds[number] = time.monotonic() - started
        await progress.sample(number)


async def sample_episode(parts: LoopPorts, settings: EpisodeSettings, number: int) -> None:
    """Dispatch an episode's prompts and wait until each is paired or dropped.

    A pause holds it here: PAUSING until nothing is in flight, then PAUSED until resumed.
    Raises StallError when nothing moves for `settings.timeout_s` outside a pause.
    """
    prompts = parts.prompts(number)
    sent, last_seen, last_change = 0, None, time.monotonic()
    while True:
        episode = await parts.episodes.get(number)
        state = state_of(episode)
        if state in SAMPLED:
            return
        refuse_ended(episode)
        if state == State.PENDING:
            await try_move(parts.episodes, number, State.SAMPLING)
        elif state == State.SAMPLING and sent < len(prompts):
            room = max(0, settings.in_flight - episode.in_flight)
            sent += await parts.dispatch(number, prompts[sent : sent + room])
        elif state == State.SAMPLING and episode.in_flight == 0:
            return
        seen = changed(episode, settings.count, parts.stage)
        if seen != last_seen:
            parts.report(seen)
        if seen != last_seen or state == State.PAUSED:
            last_seen, last_change = seen, time.monotonic()
        elif time.monotonic() - last_change > settings.timeout_s:
            raise StallError(
                f"episode {number}: nothing moved for {settings.timeout_s:.0f} s with"
                f" {episode.in_flight} prompts in flight ({state}); see the rollout and pair"
                " workers' logs, or raise episodes.timeout_s"
            )
        await asyncio.sleep(POLL_S)


async def _train(
    parts: LoopPorts, settings: EpisodeSettings, progress: Progress, first: int
) -> None:
    for number in range(first, settings.count + 1):
        await progress.until(lambda number=number: progress.sampled >= number)  # type: ignore[misc]
        await train_episode(parts, settings, progress, number)


async def train_episode(
    parts: LoopPorts, settings: EpisodeSettings, progress: Progress, number: int
) -> None:
    """Let the learner train an episode, put its weights on every engine, and close it."""
    episode = await advance(parts.episodes, number, State.TRAINING)
    parts.report(changed(episode, settings.count, parts.stage))
    started = time.monotonic()
    weights = await parts.weights(number, settings.timeout_s)
    trained = time.monotonic()
    episode = await advance(parts.episodes, number, State.PUBLISHING)
    parts.report(changed(episode, settings.count, parts.stage))
    await parts.publish(weights)
    episode = await advance(parts.episodes, number, State.COMPLETED)
    parts.report(changed(episode, settings.count, parts.stage))
    timings = {
        "sample_seconds": progress.sample_seconds.get(number, 0.0),
        "train_seconds": trained - started,
        "sync_seconds": time.monotonic() - trained,
    }
    parts.report(
        EpisodeFinished(
            stage=parts.stage,
            number=number,
            total=settings.count,
            version=weights.version,
            pairs=episode.paired,
            dropped=dict(episode.dropped),
            metrics={**weights.metrics, **await parts.statistics(number), **timings},
        )
    )
    await progress.publish(number)
