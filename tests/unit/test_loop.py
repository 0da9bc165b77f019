"""The order of events of the loop, with every part a fake."""

import asyncio
from collections.abc import Sequence

import pytest

from orchestrator.loop import run_episodes
from orchestrator.online.ports import LoopPorts, Weights
from pairloop.admin.v1.admin_pb2 import Change, Episode
from pairloop.data.v1.rollout_pb2 import Prompt
from services.errors import StallError, StateError, WorkerError
from services.queues.settings import EpisodeSettings
from services.states import TRANSITIONS, State, message_state, state_of
from services.telemetry.record.events import EpisodeChanged, EpisodeFinished, Event, Note


class World:
    """Episodes in memory, workers that pair everything at once, a learner that is always done."""

    def __init__(self, count: int, prompts: int, learned: int = 0) -> None:
        self.episodes = {
            n: Episode(number=n, prompts=prompts, state=1) for n in range(1, count + 1)
        }
        self.history: list[str] = []
        self.archived: list[int] = []
        self.events: list[Event] = []
        self.learned = learned
        self.lost: list[int] = []
        """Episodes of the checkpoint that Redis lost: the learner commits them anew, likewise."""
        self.uncommitted: list[int] = []
        """Episodes whose checkpoint the learner writes when the loop sleeps the next time."""
        self.pairing = True
        self.checkpointing = True
        self.failing = False
        """Every prompt goes to the dead letters instead."""
        self.now = 0.0
        """The loop's clock: passes in its sleeps alone."""
        self._looks = 0
        self._changed = asyncio.Condition()

    async def sleep(self, seconds: float) -> None:
        """A poll of the loop: takes no time, and lets everybody else go on."""
        self.now += seconds
        self._looks += 1
        if self.checkpointing:
            self._checkpoint()
        async with self._changed:
            self._changed.notify_all()
        await asyncio.sleep(0)

    async def looked(self, times: int) -> None:
        """The loop has looked so many times more at its episodes."""
        wanted = self._looks + times
        async with self._changed:
            await self._changed.wait_for(lambda: self._looks >= wanted)

    async def until(self, event: str) -> None:
        """It is in the history."""
        async with self._changed:
            await self._changed.wait_for(lambda: event in self.history)

    def _note(self, event: str) -> None:
        self.history.append(event)

    async def get(self, number: int) -> Episode:
        episode = self.episodes[number]
        if self.pairing and episode.in_flight:
            if self.failing:
                episode.dropped["DEAD_LETTER"] += episode.in_flight
            else:
                episode.paired += episode.in_flight
            episode.in_flight = 0
        if state_of(episode) == State.PAUSING and not episode.in_flight:
            await self.move(number, State.PAUSED)
        return episode

    async def move(self, number: int, to: State, change: Change | None = None) -> Episode:
        episode = self.episodes[number]
        state = state_of(episode)
        if to not in TRANSITIONS[state]:
            raise StateError(f"episode {number} is {state}")
        episode.state = message_state(to)
        episode.error = change.reason if change else ""
        self._note(f"{to} {number}")
        return episode

    async def prompts(self, number: int) -> list[Prompt]:
        return [Prompt(index=i) for i in range(self.episodes[number].prompts)]

    async def dispatch(self, number: int, prompts: Sequence[Prompt]) -> int:
        episode = self.episodes[number]
        episode.dispatched += len(prompts)
        episode.in_flight += len(prompts)
        self._note(f"dispatch {number}")
        return len(prompts)

    async def weights(self, version: int, timeout_s: float) -> Weights:
        if version > self.learned:
            self.learned = version
            self.uncommitted.append(version)
        return Weights(self.learned, None, {"loss": 0.5})

    async def publish(self, weights: Weights) -> None:
        self._note(f"publish {weights.version}")

    def _checkpoint(self) -> None:
        for number in self.lost:
            episode = self.episodes[number]
            episode.state = message_state(State.TRAINING)
            episode.dispatched = episode.paired = episode.trained = episode.prompts
        self.lost.clear()
        for number in self.uncommitted:
            self.episodes[number].trained = self.episodes[number].paired
            self._note(f"trained {number}")
        self.uncommitted.clear()

    async def archive(self, number: int) -> bool:
        assert state_of(self.episodes[number]) == State.COMPLETED
        self.archived.append(number)
        return True

    async def failures(self, number: int) -> str:
        return "2 x WorkerError: no such reward"

    async def statistics(self, number: int) -> dict[str, float]:
        return {"reward_mean": float(number)}

    def ports(self) -> LoopPorts:
        return LoopPorts(
            stage="online",
            episodes=self,
            prompts=self.prompts,
            dispatch=self.dispatch,
            weights=self.weights,
            publish=self.publish,
            statistics=self.statistics,
            failures=self.failures,
            archive=self.archive,
            report=self.events.append,
            changed=self.sleep,
            clock=lambda: self.now,
        )


def ending(world: World, *, paired: int, **dropped: int) -> LoopPorts:
    """Where the prompts of an episode all end so, as soon as they are dispatched."""
    world.pairing = False
    dispatch = world.dispatch

    async def dispatched(number: int, prompts: Sequence[Prompt]) -> int:
        sent = await dispatch(number, prompts)
        episode = world.episodes[number]
        episode.in_flight, episode.paired = 0, paired
        episode.dropped.update(dropped)
        return sent

    ports = world.ports()
    ports.dispatch = dispatched
    return ports


async def idle(world: World) -> None:
    """Until the loop waits for something else than the time."""
    looks = -1
    while looks != world._looks:
        looks = world._looks
        for _ in range(20):
            await asyncio.sleep(0)


async def test_episodes_run_one_after_the_other_on_policy() -> None:
    world = World(count=2, prompts=4)
    await run_episodes(world.ports(), EpisodeSettings(count=2, prompts=4))
    first, second = ([move for move in world.history if move.endswith(n)] for n in (" 1", " 2"))
    assert first == [
        *("SAMPLING 1", "dispatch 1", "TRAINING 1", "PUBLISHING 1", "publish 1"),
        *("trained 1", "COMPLETED 1"),
    ]
    assert second == [move.replace("1", "2") for move in first]
    assert world.history[0] == "publish 0"
    assert world.history.index("publish 1") < world.history.index("dispatch 2")
    finished = [event for event in world.events if isinstance(event, EpisodeFinished)]
    assert [(e.number, e.version, e.pairs) for e in finished] == [(1, 1, 4), (2, 2, 4)]
    assert finished[1].metrics["reward_mean"] == 2.0


async def test_staleness_lets_sampling_run_ahead_but_no_further() -> None:
    world = World(count=3, prompts=2)
    training = asyncio.Event()
    release = asyncio.Event()
    learner = world.weights

    async def slow(version: int, timeout_s: float) -> Weights:
        if version == 1:
            training.set()
            await release.wait()
        return await learner(version, timeout_s)

    ports = world.ports()
    ports.weights = slow
    ports.staleness = lambda: 1
    run = asyncio.create_task(
        run_episodes(ports, EpisodeSettings(count=3, prompts=2, max_staleness=1))
    )
    await training.wait()
    await idle(world)
    assert "dispatch 2" in world.history
    assert "dispatch 3" not in world.history
    assert "publish 1" not in world.history
    ports.staleness = lambda: 2  # somebody allows more while the loop waits
    async with asyncio.timeout(10):
        while "dispatch 3" not in world.history:
            await asyncio.sleep(0.05)
    assert "publish 1" not in world.history
    release.set()
    await asyncio.wait_for(run, 5)


async def test_a_pause_holds_dispatch_until_it_is_resumed() -> None:
    world = World(count=1, prompts=2)
    await world.move(1, State.PAUSED)
    run = asyncio.create_task(run_episodes(world.ports(), EpisodeSettings(count=1, prompts=2)))
    await world.looked(100)
    assert world.history == ["PAUSED 1", "publish 0"]
    await world.move(1, State.SAMPLING)
    await asyncio.wait_for(run, 5)
    assert world.history[-1] == "COMPLETED 1"


async def test_a_pause_in_sampling_drains_and_holds_training() -> None:
    world = World(count=1, prompts=2)
    world.pairing = False
    run = asyncio.create_task(run_episodes(world.ports(), EpisodeSettings(count=1, prompts=2)))
    await world.until("dispatch 1")
    await world.move(1, State.PAUSING)
    world.pairing = True
    await world.until("PAUSED 1")
    await world.looked(100)
    assert world.history[-1] == "PAUSED 1"
    await world.move(1, State.SAMPLING)
    await asyncio.wait_for(run, 5)
    assert world.history[-5:] == [
        *("TRAINING 1", "PUBLISHING 1", "publish 1", "trained 1", "COMPLETED 1")
    ]


async def test_a_pause_never_times_out_and_what_follows_has_its_full_time() -> None:
    settings = EpisodeSettings(count=1, prompts=2, timeout_s=3.0)
    world = World(count=1, prompts=2)
    world.pairing = False
    await world.move(1, State.PAUSED)
    run = asyncio.create_task(run_episodes(world.ports(), settings))
    await world.looked(1000)
    assert world.now > 10 * settings.timeout_s
    resumed = world.now
    await world.move(1, State.SAMPLING)
    with pytest.raises(StallError):
        await run
    assert world.now - resumed > settings.timeout_s


async def test_a_pause_after_sampling_holds_the_training_until_it_is_resumed() -> None:
    """The admin's pause comes between the loop's look at the episode and its move."""
    world = World(count=1, prompts=2)
    move, raced = world.move, []

    async def race(number: int, to: State, change: Change | None = None) -> Episode:
        if to == State.TRAINING and not raced:
            raced.append(to)
            await move(number, State.PAUSING)
            raise StateError("episode 1 is PAUSING")
        return await move(number, to, change)

    world.move = race  # type: ignore[method-assign]
    run = asyncio.create_task(run_episodes(world.ports(), EpisodeSettings(count=1, prompts=2)))
    await world.until("PAUSED 1")
    await world.looked(50)
    assert world.history[-1] == "PAUSED 1"
    await move(1, State.SAMPLING)
    await asyncio.wait_for(run, 5)
    assert world.history[-1] == "COMPLETED 1"


async def test_credits_and_in_flight_bound_what_is_dispatched_at_once() -> None:
    world = World(count=1, prompts=7)
    asked: list[int] = []
    dispatch = world.dispatch

    async def two_at_most(number: int, prompts: Sequence[Prompt]) -> int:
        asked.append(len(prompts))
        return await dispatch(number, prompts[:2])

    ports = world.ports()
    ports.dispatch = two_at_most
    await run_episodes(ports, EpisodeSettings(count=1, prompts=7, in_flight=3))
    assert asked == [3, 3, 3, 1]
    assert world.episodes[1].paired == 7


async def test_no_progress_is_a_stall_that_names_the_episode() -> None:
    world = World(count=1, prompts=2)
    world.pairing = False
    with pytest.raises(StallError, match=r"episode 1: nothing moved .* 2 prompts in flight"):
        await run_episodes(world.ports(), EpisodeSettings(count=1, prompts=2, timeout_s=0.2))


async def test_the_first_error_ends_the_run_with_its_cause() -> None:
    world = World(count=2, prompts=2)

    async def broken(weights: Weights) -> None:
        raise WorkerError("rollout-0: out of memory")

    ports = world.ports()
    ports.publish = broken
    with pytest.raises(WorkerError, match="rollout-0: out of memory"):
        await run_episodes(ports, EpisodeSettings(count=2, prompts=2))


async def test_a_foreign_error_in_a_coroutine_comes_out_with_its_own_cause() -> None:
    world = World(count=1, prompts=2)
    cause = KeyError("inner")

    async def broken(number: int, prompts: Sequence[Prompt]) -> int:
        raise ZeroDivisionError("division by zero") from cause

    ports = world.ports()
    ports.dispatch = broken
    with pytest.raises(ZeroDivisionError, match="division by zero") as caught:
        await run_episodes(ports, EpisodeSettings(count=1, prompts=2))
    assert caught.value.__cause__ is cause


async def test_an_error_in_training_ends_the_sampling_beside_it() -> None:
    world = World(count=3, prompts=2)
    learner = world.weights

    async def broken(version: int, timeout_s: float) -> Weights:
        if version:
            raise WorkerError("the learner: loss is not finite")
        return await learner(version, timeout_s)

    ports = world.ports()
    ports.weights = broken
    ports.staleness = lambda: 2
    with pytest.raises(WorkerError, match="the learner: loss is not finite"):
        await run_episodes(ports, EpisodeSettings(count=3, prompts=2, max_staleness=2))
    assert "TRAINING 1" in world.history
    assert "TRAINING 2" not in world.history


async def test_an_episode_that_lost_every_prompt_to_errors_has_failed() -> None:
    world = World(count=2, prompts=2)
    world.failing = True
    words = r"episode 1 failed: every prompt was lost to an error: 2 x WorkerError: no.*; mend"
    with pytest.raises(WorkerError, match=words):
        await run_episodes(world.ports(), EpisodeSettings(count=2, prompts=2))
    assert world.history == ["publish 0", "SAMPLING 1", "dispatch 1", "FAILED 1"]
    changes = [event for event in world.events if isinstance(event, EpisodeChanged)]
    assert changes[-1].state == State.FAILED
    # The same command does not take it for trained.
    with pytest.raises(StateError, match=r"episode 1 is FAILED: every prompt .*--fresh online"):
        await run_episodes(world.ports(), EpisodeSettings(count=2, prompts=2))
    assert "TRAINING 1" not in world.history


@pytest.mark.parametrize(("lost", "fails"), [(1, False), (2, False), (3, True)])
async def test_an_episode_may_lose_a_share_of_its_prompts_to_errors(lost: int, fails: bool) -> None:
    world = World(count=1, prompts=10)
    world.episodes[1].dropped["DEAD_LETTER"] = lost
    settings = EpisodeSettings(count=1, prompts=10, max_failed=0.2)
    if fails:
        words = (
            r"3 of 10 .* lost to an error \(episodes.max_failed allows 20%\): 2 x WorkerError: no.*"
        )
        with pytest.raises(WorkerError, match=words):
            await run_episodes(world.ports(), settings)
        assert world.history[-1] == "FAILED 1"
        return
    await run_episodes(world.ports(), settings)
    assert world.history[-1] == "COMPLETED 1"
    (note,) = [event for event in world.events if isinstance(event, Note)]
    assert (note.stage, note.level) == ("online", "warning")
    assert note.text == (
        f"episode 1: {lost} of 10 prompts were lost to an error: 2 x WorkerError: no such reward"
    )


async def test_prompts_sampled_by_weights_that_are_too_old_are_in_the_budget() -> None:
    world = World(count=1, prompts=10)
    ports = ending(world, paired=7, STALE=3)
    words = r"3 of 10 .* allows 20%\): 3 x sampled by weights older than episodes.max_staleness"
    with pytest.raises(WorkerError, match=words):
        await run_episodes(ports, EpisodeSettings(count=1, prompts=10, max_failed=0.2))
    assert world.history[-1] == "FAILED 1"


async def test_an_episode_without_a_pair_goes_on_when_its_answers_were_ties() -> None:
    world = World(count=1, prompts=2)
    ports = ending(world, paired=0, TIE=1, DEAD_LETTER=1)
    await run_episodes(ports, EpisodeSettings(count=1, prompts=2, max_failed=0.5))
    assert world.history[-1] == "COMPLETED 1"


async def test_a_restart_goes_on_after_the_learners_checkpoint() -> None:
    world = World(count=3, prompts=2, learned=2)
    for state in (State.SAMPLING, State.TRAINING, State.PUBLISHING, State.COMPLETED):
        await world.move(1, state)
    for state in (State.SAMPLING, State.TRAINING):
        await world.move(2, state)
    world.history.clear()
    await run_episodes(world.ports(), EpisodeSettings(count=3, prompts=2))
    assert world.history[0] == "publish 2"
    assert [move for move in world.history if move.endswith(" 2")][1:] == [
        *("PUBLISHING 2", "publish 2", "COMPLETED 2")
    ]
    assert not {"dispatch 1", "publish 1", "dispatch 2"} & set(world.history)
    assert world.history[-1] == "COMPLETED 3"


async def test_weights_that_no_checkpoint_holds_are_made_before_an_engine_samples() -> None:
    world = World(count=3, prompts=2, learned=1)
    for state in (State.SAMPLING, State.TRAINING, State.PUBLISHING, State.COMPLETED):
        await world.move(1, state)
    # Episode 2 was published, and its learner ended before it had written the checkpoint; by
    # then episode 3 was being sampled.
    for state in (State.SAMPLING, State.TRAINING, State.PUBLISHING):
        await world.move(2, state)
    world.episodes[2].paired = 2
    await world.move(3, State.SAMPLING)
    world.history.clear()
    await run_episodes(world.ports(), EpisodeSettings(count=3, prompts=2))
    assert world.history[0] == "publish 2"
    assert "dispatch 2" not in world.history
    assert world.history[-5:] == [
        *("TRAINING 3", "PUBLISHING 3", "publish 3", "trained 3", "COMPLETED 3")
    ]


async def test_the_next_is_sampled_and_none_is_over_before_a_checkpoint_holds_it() -> None:
    world = World(count=2, prompts=2)
    world.checkpointing = False
    settings = EpisodeSettings(count=2, prompts=2, timeout_s=3.0)
    with pytest.raises(StallError, match=r"episode 1: the learner wrote no checkpoint within 3 s"):
        await run_episodes(world.ports(), settings)
    assert world.history[-2:] == ["SAMPLING 2", "dispatch 2"]
    assert not [event for event in world.events if isinstance(event, EpisodeFinished)]


async def test_a_run_that_is_over_asks_no_engine_to_load_what_its_learner_took_with_it() -> None:
    world = World(count=2, prompts=2, learned=2)
    for number in (1, 2):
        for state in (State.SAMPLING, State.TRAINING, State.PUBLISHING, State.COMPLETED):
            await world.move(number, state)
    world.history.clear()
    await run_episodes(world.ports(), EpisodeSettings(count=2, prompts=2))
    assert world.history == []
    assert world.archived == [2]


async def test_episodes_of_a_checkpoint_that_redis_lost_are_closed_and_not_sampled_again() -> None:
    world = World(count=3, prompts=2, learned=2)
    world.lost = [1, 2]
    await run_episodes(world.ports(), EpisodeSettings(count=3, prompts=2))
    assert not {"dispatch 1", "dispatch 2"} & set(world.history)
    assert [move for move in world.history if move.startswith("COMPLETED")] == [
        *("COMPLETED 1", "COMPLETED 2", "COMPLETED 3")
    ]
    assert world.archived == [1, 2, 3]
