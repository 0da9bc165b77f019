"""The order of events of the loop, with every part a fake."""

import asyncio
from collections.abc import Sequence

import pytest

from orchestrator.loop import run_episodes
from orchestrator.online.ports import LoopPorts, Weights
from pairloop.admin.v1.admin_pb2 import Episode
from pairloop.data.v1.rollout_pb2 import Prompt
from services.errors import StallError, StateError, WorkerError
from services.queues.settings import EpisodeSettings
from services.states import TRANSITIONS, State, message_state, state_of
from services.telemetry.record.events import EpisodeFinished, Event


class World:
    """Episodes in memory, workers that pair everything at once, a learner that is always done."""

    def __init__(self, count: int, prompts: int, learned: int = 0) -> None:
        self.episodes = {
            n: Episode(number=n, prompts=prompts, state=1) for n in range(1, count + 1)
        }
        self.history: list[str] = []
        self.events: list[Event] = []
        self.learned = learned
        self.pairing = True

    async def get(self, number: int) -> Episode:
        episode = self.episodes[number]
        if self.pairing and episode.in_flight:
            episode.paired += episode.in_flight
            episode.in_flight = 0
        if state_of(episode) == State.PAUSING and not episode.in_flight:
            await self.move(number, State.PAUSED)
        return episode

    async def move(self, number: int, to: State) -> Episode:
        episode = self.episodes[number]
        state = state_of(episode)
        if to not in TRANSITIONS[state]:
            raise StateError(f"episode {number} is {state}")
        episode.state = message_state(to)
        self.history.append(f"{to} {number}")
        return episode

    async def dispatch(self, number: int, prompts: Sequence[Prompt]) -> int:
        episode = self.episodes[number]
        episode.dispatched += len(prompts)
        episode.in_flight += len(prompts)
        self.history.append(f"dispatch {number}")
        return len(prompts)

    async def weights(self, version: int, timeout_s: float) -> Weights:
        self.learned = max(self.learned, version)
        return Weights(self.learned, None, {"loss": 0.5})

    async def publish(self, weights: Weights) -> None:
        self.history.append(f"publish {weights.version}")

    async def statistics(self, number: int) -> dict[str, float]:
        return {"reward_mean": float(number)}

    def parts(self) -> LoopPorts:
        return LoopPorts(
            stage="online",
            episodes=self,
            prompts=lambda number: [Prompt(index=i) for i in range(self.episodes[number].prompts)],
            dispatch=self.dispatch,
            weights=self.weights,
            publish=self.publish,
            statistics=self.statistics,
            report=self.events.append,
        )


async def test_episodes_run_one_after_the_other_on_policy() -> None:
    world = World(count=2, prompts=4)
    await run_episodes(world.parts(), EpisodeSettings(count=2, prompts=4))
    assert world.history == [
        "publish 0",
        *("SAMPLING 1", "dispatch 1", "TRAINING 1", "PUBLISHING 1", "publish 1", "COMPLETED 1"),
        *("SAMPLING 2", "dispatch 2", "TRAINING 2", "PUBLISHING 2", "publish 2", "COMPLETED 2"),
    ]
    finished = [event for event in world.events if isinstance(event, EpisodeFinished)]
    assert [(e.number, e.version, e.pairs) for e in finished] == [(1, 1, 4), (2, 2, 4)]
    assert finished[1].metrics["reward_mean"] == 2.0


async def test_staleness_lets_sampling_run_ahead_but_no_further() -> None:
    world = World(count=3, prompts=2)
    release = asyncio.Event()
    learner = world.weights

    async def slow(version: int, timeout_s: float) -> Weights:
        if version:
            await release.wait()
        return await learner(version, timeout_s)

    parts = world.parts()
    parts.weights = slow
    run = asyncio.create_task(
        run_episodes(parts, EpisodeSettings(count=3, prompts=2, max_staleness=1))
    )
    await asyncio.sleep(0.5)
    assert "dispatch 2" in world.history
    assert "dispatch 3" not in world.history
    assert "publish 1" not in world.history
    release.set()
    await asyncio.wait_for(run, 5)
    assert world.history.index("publish 1") < world.history.index("dispatch 3")


async def test_a_pause_holds_dispatch_until_it_is_resumed() -> None:
    world = World(count=1, prompts=2)
    await world.move(1, State.PAUSED)
    run = asyncio.create_task(run_episodes(world.parts(), EpisodeSettings(count=1, prompts=2)))
    await asyncio.sleep(0.3)
    assert "dispatch 1" not in world.history
    await world.move(1, State.SAMPLING)
    await asyncio.wait_for(run, 5)
    assert world.history[-1] == "COMPLETED 1"


async def test_a_pause_in_sampling_drains_and_holds_training() -> None:
    world = World(count=1, prompts=2)
    world.pairing = False
    run = asyncio.create_task(run_episodes(world.parts(), EpisodeSettings(count=1, prompts=2)))
    await asyncio.sleep(0.2)
    await world.move(1, State.PAUSING)
    world.pairing = True
    await asyncio.sleep(0.3)
    assert world.history[-1] == "PAUSED 1"
    await world.move(1, State.SAMPLING)
    await asyncio.wait_for(run, 5)
    assert "TRAINING 1" in world.history


async def test_no_progress_is_a_stall_that_names_the_episode() -> None:
    world = World(count=1, prompts=2)
    world.pairing = False
    with pytest.raises(StallError, match=r"episode 1: nothing moved .* 2 prompts in flight"):
        await run_episodes(world.parts(), EpisodeSettings(count=1, prompts=2, timeout_s=0.2))


async def test_the_first_error_ends_the_run_with_its_cause() -> None:
    world = World(count=2, prompts=2)

    async def broken(weights: Weights) -> None:
        raise WorkerError("rollout-0: out of memory")

    parts = world.parts()
    parts.publish = broken
    with pytest.raises(WorkerError, match="rollout-0: out of memory"):
        await run_episodes(parts, EpisodeSettings(count=2, prompts=2))


async def test_a_restart_goes_on_after_the_learners_checkpoint() -> None:
    world = World(count=3, prompts=2, learned=2)
    for state in (State.SAMPLING, State.TRAINING, State.PUBLISHING, State.COMPLETED):
        await world.move(1, state)
    for state in (State.SAMPLING, State.TRAINING):
        await world.move(2, state)
    world.history.clear()
    await run_episodes(world.parts(), EpisodeSettings(count=3, prompts=2))
    assert world.history[0] == "publish 2"
    assert [move for move in world.history if move.endswith(" 2")][1:] == [
        *("PUBLISHING 2", "publish 2", "COMPLETED 2")
    ]
    assert not {"dispatch 1", "publish 1", "dispatch 2"} & set(world.history)
    assert world.history[-1] == "COMPLETED 3"


async def test_a_checkpoint_that_redis_knows_nothing_of_is_refused() -> None:
    world = World(count=3, prompts=2, learned=2)
    with pytest.raises(StateError, match=r"episode 2, which Redis has as PENDING.*name="):
        await run_episodes(world.parts(), EpisodeSettings(count=3, prompts=2))
    assert not any(move.startswith("dispatch") for move in world.history)
