"""How an episode moves while an admin pauses and resumes it, by histories."""

import pytest

from orchestrator.loop import to_training
from orchestrator.online.transitions import ChangeWatch, episode_event, to_publishing, try_move
from pairloop.admin.v1.admin_pb2 import Change, Episode
from services.errors import StallError, StateError
from services.queues.settings import EpisodeSettings
from services.states import TRANSITIONS, State, message_state, state_of
from services.telemetry.record.events import EpisodeChanged, Event
from tests.unit.test_loop import World

SETTINGS = EpisodeSettings(count=1, prompts=1)


class Moved(World):
    """An episode whose state an admin changes at chosen looks of the loop."""

    def __init__(self, state: State, changes: dict[int, State]) -> None:
        super().__init__(count=1, prompts=1)
        self.episodes[1].state = message_state(state)
        self.episodes[1].dispatched = self.episodes[1].paired = self.episodes[1].trained = 1
        self._changes = changes
        self._seen = 0

    async def get(self, number: int) -> Episode:
        if change := self._changes.get(self._seen):
            self.episodes[1].state = message_state(change)
        self._seen += 1
        return self.episodes[number]


async def test_a_state_that_is_there_or_further_stays() -> None:
    for state in (State.TRAINING, State.PUBLISHING, State.COMPLETED):
        world = Moved(state, {})
        if state != State.TRAINING:
            assert state_of(await to_publishing(world.ports(), 1, 3.0)) == state
        assert state_of(await to_training(world.ports(), SETTINGS, 1)) == state
        assert world.history == []


async def test_a_held_episode_is_looked_at_until_it_is_resumed() -> None:
    world = Moved(State.PAUSING, {3: State.PAUSED, 8: State.SAMPLING})
    await to_training(world.ports(), SETTINGS, 1)
    assert world.history == ["TRAINING 1"]
    assert world._seen > 8


async def test_what_redis_lost_of_a_sampled_episode_is_sampled_before_it_is_trained() -> None:
    world = World(count=1, prompts=3)
    world.episodes[1].state = message_state(State.SAMPLING)
    world.episodes[1].dispatched = world.episodes[1].paired = 1
    move = world.move

    async def whole(number: int, to: State, change: Change | None = None) -> Episode:
        if world.episodes[number].dispatched < 3:
            raise StateError("episode 1 has prompts that are still to be sampled")
        return await move(number, to, change)

    world.move = whole  # type: ignore[method-assign]
    episode = await to_training(world.ports(), EpisodeSettings(count=1, prompts=3), 1)
    assert (state_of(episode), episode.paired) == (State.TRAINING, 3)


async def test_what_fell_back_behind_its_training_waits_for_the_learners_commit() -> None:
    world = Moved(State.SAMPLING, {5: State.TRAINING})
    await to_publishing(world.ports(), 1, 3.0)
    assert world.history == ["PUBLISHING 1"]
    with pytest.raises(StallError, match="episode 1: the learner wrote no checkpoint within 3 s"):
        await to_publishing(Moved(State.SAMPLING, {}).ports(), 1, 3.0)


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (State.FAILED, "is FAILED: every prompt was lost; .* --fresh online"),
        (
            State.CANCELLED,
            "was cancelled by ada: bad prompts; begin the stage anew: --fresh online",
        ),
    ],
)
async def test_an_aborted_episode_says_why_and_what_to_do(state: State, said: str) -> None:
    world = Moved(State.SAMPLING, {0: state})
    if state == State.FAILED:
        world.episodes[1].error = "every prompt was lost"
    else:
        world.episodes[1].last_change.CopyFrom(Change(actor="ada", reason="bad prompts"))
    for move in (
        to_training(world.ports(), SETTINGS, 1),
        to_publishing(world.ports(), 1, 3.0),
    ):
        with pytest.raises(StateError, match=f"^episode 1 {said}"):
            await move


async def test_a_move_that_a_pause_overtook_is_tried_again_and_no_other() -> None:
    held = Moved(State.SAMPLING, {0: State.PAUSED})

    async def overtaken(number: int, to: State, change: Change | None = None) -> Episode:
        raise StateError("episode 1 is PAUSED")

    held.move = overtaken  # type: ignore[method-assign]
    assert await try_move(held, 1, State.TRAINING) is None
    over = Moved(State.CANCELLED, {})
    with pytest.raises(StateError, match="episode 1 is CANCELLED"):
        await try_move(over, 1, State.TRAINING)


def test_a_watch_reports_changes_alone_and_counts_no_pause() -> None:
    now, events = [0.0], list[Event]()
    ports = World(count=1, prompts=2).ports()
    ports.clock = lambda: now[0]
    ports.report = events.append
    watch = ChangeWatch(ports, EpisodeSettings(count=1, prompts=2, timeout_s=10.0))
    episode = Episode(number=1, prompts=2, state=message_state(State.SAMPLING))

    watch.see(episode)
    now[0] = 9.0
    watch.see(episode)
    assert events == [episode_event(episode, 1, "online")]
    episode.in_flight = 2
    watch.see(episode)
    now[0] = 18.0
    watch.see(episode)
    episode.state = message_state(State.PAUSED)
    now[0] = 1000.0
    watch.see(episode)
    watch.see(episode)
    episode.state = message_state(State.SAMPLING)
    watch.see(episode)
    assert [e.state for e in events if isinstance(e, EpisodeChanged)] == [
        *(State.SAMPLING, State.SAMPLING, State.PAUSED, State.SAMPLING)
    ]
    now[0] = 1010.5
    with pytest.raises(StallError, match=r"nothing moved for 10 s with 2 prompts .*; see the"):
        watch.see(episode)


def test_every_state_that_the_loop_moves_to_is_one_the_table_allows() -> None:
    for before, after in (
        (State.PENDING, State.SAMPLING),
        (State.SAMPLING, State.TRAINING),
        (State.SAMPLING, State.FAILED),
        (State.PAUSING, State.FAILED),
        (State.TRAINING, State.PUBLISHING),
        (State.PUBLISHING, State.COMPLETED),
    ):
        assert after in TRANSITIONS[before]
