"""The online loop. Two coroutines are the algorithm.

              credits                              gRPC Score
    sample ----------> [prompts] -> rollout -> [rollouts] -> pairs <-> reward
      ^                               ^                        |
      | published                     | weights, attested      v
    train <--- version e --- learner <---------------------- [pairs]

    coroutine  waits for                                  unblocked by
    sample(e)  weights of episode e - 1 - staleness       train
               an end of the pause                        the admin API
               every prompt paired or dropped             the pair workers
    train(e)   episode e sampled                          sample
               weights of episode e                       the learner
               every engine's attestation                 the rollout workers
               the checkpoint that holds the pairs        the learner

Episodes are durable: each coroutine looks at an episode's state and goes on from there, so the
loop of a restarted run is the same loop. What the loop touches is in online/ports.py; how an
episode moves while an admin may pause it, in online/transitions.py; how it ends, in
online/closing.py.
"""

import asyncio
from functools import partial

from orchestrator.online.closing import close, put_away
from orchestrator.online.ports import LoopPorts, Milestones, Weights
from orchestrator.online.transitions import (
    POLL_S,
    ChangeWatch,
    episode_event,
    fail_if_too_many_failed,
    raise_if_aborted,
    tell_failures,
    to_publishing,
    try_move,
    until_committed,
)
from pairloop.admin.v1.admin_pb2 import Episode
from services.errors import first_of
from services.queues.settings import EpisodeSettings
from services.states import SAMPLED, State, state_of
from services.telemetry.record.events import EpisodeFinished

_LOOK_S = 1.0
"""Between two looks at an episode that is being trained."""


async def run_episodes(ports: LoopPorts, settings: EpisodeSettings) -> None:
    """Every episode, first to last. The first error of either coroutine ends both."""
    milestones = Milestones()
    first = await _publish_start(ports, settings, milestones)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_sample(ports, settings, milestones, first))
            tasks.create_task(_train(ports, settings, milestones, first))
    except BaseExceptionGroup as group:
        error = first_of(group)
        raise error from error.__cause__


async def _publish_start(
    ports: LoopPorts, settings: EpisodeSettings, milestones: Milestones
) -> int:
    """Bring the engines to the learner's version; returns the first episode to run.

    On a fresh run that is version 0, the starting policy, so that even the first sample comes
    from attested weights.
    """
    weights = await ports.weights(0, settings.timeout_s)
    version = weights.version
    # Where the next episode's weights were published and are in no checkpoint, the learner makes
    # them once more: the engines take nothing before those, lest an episode that began with them
    # goes on with older ones. Where all is over nobody needs any, and the learner has ended.
    made_again = await _is(ports, version + 1, State.PUBLISHING, settings)
    over = version == settings.count and await _is(ports, version, State.COMPLETED, settings)
    if not (made_again or over):
        await ports.publish(weights)
    await milestones.mark_published(version)
    if version == 0:
        return 1
    # The learner's checkpoint holds this episode; its last moves may be missing, and where Redis
    # lost more the learner commits it anew.
    await close(ports, settings, version - 1)
    last = await until_committed(ports, version, settings.timeout_s)
    if state_of(last) != State.COMPLETED:
        return version
    if not await put_away(ports, version):  # it may have been cut off in between
        await close(ports, settings, version)
    return version + 1


async def _is(ports: LoopPorts, number: int, state: State, settings: EpisodeSettings) -> bool:
    """Whether there is such an episode, and it is in this state."""
    there = 1 <= number <= settings.count
    return there and state_of(await ports.episodes.get(number)) == state


async def _sample(
    ports: LoopPorts, settings: EpisodeSettings, milestones: Milestones, first: int
) -> None:
    for number in range(first, settings.count + 1):
        await milestones.until_published(partial(_needed, ports, number))
        seconds = await sample_episode(ports, settings, number)
        await milestones.mark_sampled(number, seconds)


def _needed(ports: LoopPorts, number: int) -> int:
    """The oldest version that may sample an episode, as of now."""
    return number - 1 - ports.staleness()


async def sample_episode(ports: LoopPorts, settings: EpisodeSettings, number: int) -> float:
    """Dispatch an episode's prompts and wait until each is paired or dropped.

    A pause holds it here: PAUSING until nothing is in flight, then PAUSED until resumed. Returns
    the seconds it took without the time that it was PAUSED.
    Raises StallError when nothing moves for `settings.timeout_s` outside a pause, WorkerError
    when more prompts than `settings.max_failed` are lost to errors: the episode is FAILED then.
    """
    started, paused = ports.clock(), 0.0
    prompts = await ports.prompts(number)
    watch = ChangeWatch(ports, settings)
    while True:
        episode = await ports.episodes.get(number)
        state = state_of(episode)
        if state in SAMPLED:
            return ports.clock() - started - paused
        raise_if_aborted(episode, ports.stage)
        if state == State.PENDING:
            await try_move(ports.episodes, number, State.SAMPLING)
        if state == State.SAMPLING:
            await fail_if_too_many_failed(ports, episode, settings)
        # By what Redis has, not by what was sent: it may have lost its last second since. They are
        # dispatched in order, so what is missing is the end.
        missing = prompts[episode.dispatched :]
        if state == State.SAMPLING and missing:
            room = max(0, settings.in_flight - episode.in_flight)
            await ports.dispatch(number, missing[:room])
        elif state == State.SAMPLING and episode.in_flight == 0:
            await tell_failures(ports, episode)
            return ports.clock() - started - paused
        if watch.see(episode) and state == State.PAUSED:
            await ports.statistics(number)  # the workers then show their pairs
        looked = ports.clock()
        await ports.changed(POLL_S)
        if state == State.PAUSED:
            paused += ports.clock() - looked


async def _train(
    ports: LoopPorts, settings: EpisodeSettings, milestones: Milestones, first: int
) -> None:
    for number in range(first, settings.count + 1):
        await milestones.until_sampled(number)
        await train_episode(ports, settings, number, milestones)


async def to_training(ports: LoopPorts, settings: EpisodeSettings, number: int) -> Episode:
    """Move a sampled episode on, once no pause holds it; one that is there or further stays.

    What Redis lost of it meanwhile is sampled once more.
    """
    while True:
        episode = await ports.episodes.get(number)
        raise_if_aborted(episode, ports.stage)
        if state_of(episode) in SAMPLED:
            return episode
        moved = await try_move(ports.episodes, number, State.TRAINING)
        if moved is not None:
            return moved
        await sample_episode(ports, settings, number)
        await ports.changed(POLL_S)


async def _weights_of(ports: LoopPorts, settings: EpisodeSettings, number: int) -> Weights:
    """An episode's weights, once the learner has them.

    Meanwhile Redis may fall back to before the episode was sampled (power loss, a failover to a
    replica): then what is missing is sampled once more.
    """
    weights = asyncio.ensure_future(ports.weights(number, settings.timeout_s))
    try:
        while not (await asyncio.wait({weights}, timeout=_LOOK_S))[0]:
            await to_training(ports, settings, number)
        return await weights
    finally:
        weights.cancel()


async def train_episode(
    ports: LoopPorts, settings: EpisodeSettings, number: int, milestones: Milestones
) -> None:
    """Let the learner train an episode, put its weights on every engine, and close it.

    The next episode may be sampled once the engines hold the weights; the learner writes its
    checkpoint meanwhile, and only then is the episode COMPLETED and its ledger put away.
    """

    def tell(moved: Episode) -> None:
        ports.report(episode_event(moved, settings.count, ports.stage))

    tell(await to_training(ports, settings, number))
    started = ports.clock()
    weights = await _weights_of(ports, settings, number)
    trained = ports.clock()
    tell(await to_publishing(ports, number, settings.timeout_s))
    await ports.publish(weights)
    timings = {
        "sample_seconds": milestones.sample_seconds[number],
        "train_seconds": trained - started,
        "sync_seconds": ports.clock() - trained,
    }
    await milestones.mark_published(number)
    episode = await until_committed(ports, number, settings.timeout_s)
    # Before the move: a run that is cut off in between publishes, and reports, once more.
    ports.report(
        EpisodeFinished(
            stage=ports.stage,
            number=number,
            total=settings.count,
            version=weights.version,
            pairs=episode.paired,
            dropped=dict(episode.dropped),
            metrics={**weights.metrics, **await ports.statistics(number), **timings},
        )
    )
    await close(ports, settings, number)
