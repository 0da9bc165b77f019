"""The episode store on a real Redis: every move by the table, pauses that last."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from orchestrator.episodes import EpisodeStore
from pairloop.admin.v1.admin_pb2 import Change, Episode, EpisodeState
from pairloop.data.v1.pair_pb2 import DropReason
from services.errors import StateError, UnknownEpisodeError
from services.queues.keys import Keys
from services.queues.queues import RunQueues
from services.queues.settings import QueueSettings
from services.states import TRANSITIONS, State
from tests.integration.redis_rows import all_sampled
from tests.integration.test_queues import pair_of, prompts, rollout_of

WAY_TO: dict[State, tuple[State, ...]] = {
    State.PENDING: (),
    State.SAMPLING: (State.SAMPLING,),
    State.PAUSED: (State.SAMPLING, State.PAUSING),
    State.TRAINING: (State.SAMPLING, State.TRAINING),
    State.PUBLISHING: (State.SAMPLING, State.TRAINING, State.PUBLISHING),
    State.COMPLETED: (State.SAMPLING, State.TRAINING, State.PUBLISHING, State.COMPLETED),
    State.FAILED: (State.FAILED,),
    State.CANCELLED: (State.CANCELLED,),
}


def state(episode: Episode) -> str:
    return EpisodeState.Name(episode.state).removeprefix("EPISODE_STATE_")


def change(request_id: str, reason: str = "because") -> Change:
    return Change(actor="ada", reason=reason, request_id=request_id)


@pytest.fixture
async def store(redis_url: str, run_name: str) -> AsyncIterator[EpisodeStore]:
    store = await EpisodeStore.open(redis_url, run_name, 5.0)
    await store.create(3, 4)
    yield store
    await store.close()


@pytest.fixture
async def queues(redis_url: str, store: EpisodeStore) -> AsyncIterator[RunQueues]:
    queues = await RunQueues.open(redis_url, store.run, QueueSettings())
    yield queues
    await queues.close()


async def finish_all(queues: RunQueues) -> None:
    for item in await queues.take("prompts", "a", 100, 0.0):
        await queues.commit_rollout(item, rollout_of(item))
    for item in await queues.take("rollouts", "p", 100, 0.0):
        await queues.commit_pair(item, pair_of(item))


async def test_nothing_is_trained_before_every_prompt_is_sampled(
    store: EpisodeStore, queues: RunQueues
) -> None:
    await store.move(1, State.SAMPLING)
    for work in (prompts(store.run, 4)[:3], prompts(store.run, 4)):
        with pytest.raises(StateError, match="episode 1 has prompts that are still to be sampled"):
            await store.move(1, State.TRAINING)
        await queues.dispatch(1, work)
    with pytest.raises(StateError, match="still to be sampled"):
        await store.move(1, State.TRAINING)
    await finish_all(queues)
    assert state(await store.move(1, State.TRAINING)) == "TRAINING"


async def test_nothing_is_over_before_a_checkpoint_holds_it(
    store: EpisodeStore, queues: RunQueues
) -> None:
    """What the loop saw as committed the server may have lost since."""
    await store.move(1, State.SAMPLING)
    await queues.dispatch(1, prompts(store.run, 4))
    await finish_all(queues)
    for to in (State.TRAINING, State.PUBLISHING):
        await store.move(1, to)
    with pytest.raises(StateError, match="episode 1 is in no checkpoint that is known"):
        await store.move(1, State.COMPLETED)
    assert await states(store) == ["PUBLISHING", "PENDING", "PENDING"]
    ids = [prompt.id for prompt in prompts(store.run, 4)]
    assert await queues.commit_trained(1, 1, ids, {}) == 4
    assert state(await store.move(1, State.COMPLETED)) == "COMPLETED"


async def test_an_episode_without_a_pair_is_not_over_before_a_checkpoint_holds_it(
    store: EpisodeStore, queues: RunQueues
) -> None:
    """Else a learner that dies in between finds it over, and has no checkpoint of it."""
    await store.move(1, State.SAMPLING)
    await queues.dispatch(1, prompts(store.run, 4))
    for item in await queues.take("prompts", "a", 4, 0.0):
        await queues.commit_rollout(item, rollout_of(item))
    for item in await queues.take("rollouts", "p", 4, 0.0):
        await queues.commit_drop(item, DropReason.DROP_REASON_TIE)
    for to in (State.TRAINING, State.PUBLISHING):
        await store.move(1, to)
    with pytest.raises(StateError, match="episode 1 is in no checkpoint that is known"):
        await store.move(1, State.COMPLETED)
    ids = [prompt.id for prompt in prompts(store.run, 4)]
    assert await queues.commit_trained(1, 1, [], dict.fromkeys(ids, "TIE")) == 0
    assert state(await store.move(1, State.COMPLETED)) == "COMPLETED"


async def states(store: EpisodeStore) -> list[str]:
    return [state(episode) for episode in await store.list()]


@pytest.mark.parametrize("begin", list(WAY_TO))
async def test_moves_the_table_lacks_are_refused(store: EpisodeStore, begin: State) -> None:
    await all_sampled(store, 1)
    for step in WAY_TO[begin]:
        await store.move(1, step)
    assert state(await store.get(1)) == begin
    for to in State:
        if to in TRANSITIONS[begin]:
            continue
        with pytest.raises(StateError, match=f"episode 1 is {begin} and cannot become {to}: ") as e:
            await store.move(1, to)
        assert all(allowed in str(e.value) for allowed in TRANSITIONS[begin])
    assert state(await store.get(1)) == begin


@pytest.mark.parametrize(("begin", "to"), [(b, to) for b in WAY_TO for to in TRANSITIONS[b]])
async def test_moves_the_table_has_are_made(store: EpisodeStore, begin: State, to: State) -> None:
    await all_sampled(store, 1)
    for step in WAY_TO[begin]:
        await store.move(1, step)
    # With nothing in flight a pause is complete at once.
    made = State.PAUSED if to == State.PAUSING else to
    assert state(await store.move(1, to)) == made
    assert state(await store.get(1)) == made


async def test_pausing_obeys_the_table_too(store: EpisodeStore, queues: RunQueues) -> None:
    await store.move(1, State.SAMPLING)
    await queues.dispatch(1, prompts(store.run, 2))
    assert state(await store.move(1, State.PAUSING)) == "PAUSING"
    for to in set(State) - set(TRANSITIONS[State.PAUSING]):
        with pytest.raises(StateError, match=f"episode 1 is PAUSING and cannot become {to}"):
            await store.move(1, to)
    assert state(await store.move(1, State.SAMPLING)) == "SAMPLING"


async def test_creating_again_changes_nothing(store: EpisodeStore) -> None:
    await store.move(1, State.SAMPLING)
    await store.create(3, 4)
    assert await states(store) == ["SAMPLING", "PENDING", "PENDING"]
    await store.create(5, 4)
    assert await states(store) == ["SAMPLING", *["PENDING"] * 4]
    assert {episode.prompts for episode in await store.list()} == {4}
    with pytest.raises(StateError, match=r"begun with 4 prompts an episode"):
        await store.create(5, 8)
    with pytest.raises(StateError, match=r"has 5 episodes already"):
        await store.create(4, 4)
    assert len(await store.list()) == 5


async def test_unknown_episodes(store: EpisodeStore, redis_url: str) -> None:
    with pytest.raises(UnknownEpisodeError, match="no episode 4: it has 1 to 3"):
        await store.get(4)
    with pytest.raises(UnknownEpisodeError):
        await store.pause(4, change("a"))
    empty = await EpisodeStore.open(redis_url, store.run + "-empty", 5.0)
    assert await empty.list() == []
    with pytest.raises(UnknownEpisodeError, match="no episodes yet"):
        await empty.get(0)
    await empty.close()


async def test_a_pause_drains_what_is_in_flight(store: EpisodeStore, queues: RunQueues) -> None:
    await store.move(1, State.SAMPLING)
    await queues.dispatch(1, prompts(store.run, 3))
    paused = await store.pause(1, change("p1", "the reward looks off"))
    assert (state(paused), paused.in_flight) == ("PAUSING", 3)
    await finish_all(queues)
    paused = await store.get(1)
    assert (state(paused), paused.in_flight, paused.paired) == ("PAUSED", 0, 3)
    assert paused.last_change.actor == "ada"
    assert paused.last_change.reason == "the reward looks off"
    assert paused.last_change.request_id == "p1"
    assert paused.last_change.time.seconds > 1_600_000_000
    resumed = await store.resume(0, change("r1"))
    assert state(resumed) == "SAMPLING"
    assert (await queues.dispatch(1, prompts(store.run, 4))).sent == 1


async def test_a_pause_with_nothing_in_flight_is_paused_at_once(store: EpisodeStore) -> None:
    await store.move(1, State.SAMPLING)
    assert state(await store.pause(0, change("p1"))) == "PAUSED"
    assert state(await store.resume(1, change("r1"))) == "SAMPLING"


async def test_a_pending_episode_resumes_to_pending(store: EpisodeStore) -> None:
    assert state(await store.pause(2, change("p1"))) == "PAUSED"
    assert await states(store) == ["PENDING", "PAUSED", "PENDING"]
    with pytest.raises(StateError):
        await store.pause(2, change("p2"))
    assert state(await store.resume(0, change("r1"))) == "PENDING"
    with pytest.raises(StateError, match="no episode left to resume"):
        await store.resume(0, change("r2"))


async def test_pausing_can_be_resumed_before_it_is_paused(
    store: EpisodeStore, queues: RunQueues
) -> None:
    await store.move(1, State.SAMPLING)
    await queues.dispatch(1, prompts(store.run, 1))
    assert state(await store.pause(1, change("p"))) == "PAUSING"
    assert state(await store.resume(0, change("r"))) == "SAMPLING"
    await finish_all(queues)
    assert state(await store.get(1)) == "SAMPLING"


async def test_pausing_the_current_one_takes_the_next_when_it_trains(store: EpisodeStore) -> None:
    await all_sampled(store, 1)
    for to in (State.SAMPLING, State.TRAINING):
        await store.move(1, to)
    assert (await store.get(0)).number == 1
    paused = await store.pause(0, change("p"))
    assert (paused.number, state(paused)) == (2, "PAUSED")
    with pytest.raises(StateError, match="episode 2 is PAUSED"):
        await store.pause(0, change("again"))
    assert await states(store) == ["TRAINING", "PAUSED", "PENDING"]


async def test_the_same_request_again_changes_nothing_and_answers_the_same(
    store: EpisodeStore,
) -> None:
    await store.move(1, State.SAMPLING)
    first = await store.pause(0, change("p1"))
    resumed = await store.resume(0, change("r1"))
    assert await store.pause(0, change("p1")) == first
    assert await store.resume(0, change("r1")) == resumed
    assert state(await store.get(1)) == "SAMPLING"
    with pytest.raises(StateError, match="request id p1 was used for another change"):
        await store.resume(0, change("p1"))
    with pytest.raises(StateError, match="request id p1 was used for another change"):
        await store.pause(2, change("p1"))


async def test_of_racing_changes_each_is_done_or_refused(store: EpisodeStore) -> None:
    await store.move(1, State.SAMPLING)
    same = await asyncio.gather(*(store.pause(1, change("same")) for _ in range(8)))
    assert all(episode == same[0] for episode in same)
    await store.resume(1, change("back"))
    outcomes = await asyncio.gather(
        *(store.pause(1, change(f"p{i}")) for i in range(8)), return_exceptions=True
    )
    assert sum(isinstance(outcome, Episode) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, StateError) for outcome in outcomes) == 7


async def test_the_loops_own_moves_leave_the_last_change_shown(store: EpisodeStore) -> None:
    assert not (await store.move(1, State.SAMPLING)).HasField("last_change")
    await store.pause(1, change("p", "lunch"))
    await store.resume(1, change("r", "back"))
    await all_sampled(store, 1)
    trained = await store.move(1, State.TRAINING)
    assert trained.last_change.reason == "back"
    failed = await store.move(1, State.FAILED, change("f", "the learner died"))
    assert failed.error == "the learner died"


async def test_a_pause_is_there_for_the_next_process(store: EpisodeStore, redis_url: str) -> None:
    await store.pause(1, change("p", "overnight"))
    other = await EpisodeStore.open(redis_url, store.run, 5.0)
    assert (await other.get(1)).last_change.reason == "overnight"
    assert state(await other.resume(1, change("r"))) == "PENDING"
    await other.close()


async def test_the_current_one_is_found_again_when_redis_fell_back_to_before_its_end(
    store: EpisodeStore,
) -> None:
    """Although a later one is over, which was cancelled before."""
    client, key = store._records._client, Keys(store.run).episode(1)
    for number, to in ((1, "COMPLETED"), (2, "CANCELLED")):
        await client._redis.hset(Keys(store.run).episode(number), "state", to)
    assert (await store.get(0)).number == 3
    await client._redis.hset(key, "state", "PUBLISHING")
    assert (await store.get(0)).number == 1
