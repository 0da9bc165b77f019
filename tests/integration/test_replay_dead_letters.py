"""Dead letters that are tried again: on a real Redis, by hand and by the same command."""

from collections.abc import AsyncIterator, Sequence

import pytest

from orchestrator.episodes import EpisodeStore, State
from orchestrator.online.dead_letters import try_failed_again
from pairloop.admin.v1.admin_pb2 import Change
from pairloop.data.v1.pair_pb2 import DROP_REASON_TIE, Score
from pairloop.data.v1.rollout_pb2 import Prompt, Sample
from services.errors import StateError, UnknownEpisodeError, WorkerError
from services.queues.items import StreamName
from services.queues.ledger import ledger_audit
from services.queues.queues import RunQueues
from services.queues.settings import QueueSettings
from services.states import state_of
from tests.fake_engine import FakeEngine
from tests.integration.test_queues import pair_of, prompts, rollout_of
from tests.integration.test_whole_loop import EPISODES, Checker, world

SETTINGS = QueueSettings(retry_s=0, credits=8, max_failures=2, reclaim_idle_s=300.0)


@pytest.fixture
async def store(redis_url: str, run_name: str) -> AsyncIterator[EpisodeStore]:
    store = await EpisodeStore.open(redis_url, run_name, 5.0)
    await store.create(2, 4)
    await store.move(1, State.SAMPLING)
    yield store
    await store.close()


@pytest.fixture
async def queues(redis_url: str, store: EpisodeStore) -> AsyncIterator[RunQueues]:
    """Of episode 1 a prompt was never sampled, one was never scored, two wait to be scored."""
    queues = await RunQueues.open(redis_url, store.run, SETTINGS)
    await queues.dispatch(1, prompts(store.run, 4))
    first, *others = await queues.take("prompts", "a", 4, 0.0)
    await queues.fail("prompts", first, "no such answer")
    await bury(queues, "prompts")
    for item in others:
        await queues.commit_rollout(item, rollout_of(item))
    (item,) = await queues.take("rollouts", "p", 1, 0.0)
    await queues.fail("rollouts", item, "no score")
    await bury(queues, "rollouts")
    yield queues
    await queues.close()


async def bury(queues: RunQueues, stream: StreamName) -> None:
    """What failed once fails again: it is a dead letter."""
    (item,) = await queues.take(stream, "again", 1, 0.0)
    assert await queues.fail(stream, item, f"the last of\n{stream}")


async def work_off(queues: RunQueues) -> None:
    """All that lies in the streams becomes a pair."""
    for item in await queues.take("prompts", "b", 9, 0.0):
        await queues.commit_rollout(item, rollout_of(item))
    for item in await queues.take("rollouts", "q", 9, 0.0):
        await queues.commit_pair(item, pair_of(item))


async def test_a_dead_letter_that_is_replayed_is_trained_once(
    queues: RunQueues, store: EpisodeStore
) -> None:
    ids = [prompt.id for prompt in prompts(store.run, 4)]
    before = await store.get(1)
    assert (before.in_flight, dict(before.dropped)) == (2, {"DEAD_LETTER": 2})
    assert await queues.credits_in_use() == 2
    assert await store.replay(1) == 2
    assert await store.replay(1) == 0
    assert await queues.dead_letters() == []
    episode = await store.get(1)
    assert (episode.dispatched, episode.in_flight, dict(episode.dropped)) == (4, 4, {})
    assert await queues.credits_in_use() == 4
    await work_off(queues)
    assert await queues.dropped(1) == {}
    assert [pair.id for pair in await queues.pairs(1)] == ids
    await store.move(1, State.TRAINING)
    assert await queues.commit_trained(1, 1, ids, await queues.dropped(1)) == 4
    assert await queues.commit_trained(1, 1, ids, {}) == 0
    events = await queues.ledger(1)
    assert ledger_audit(events, {1: ids}) == []
    assert [(e.id, e.detail) for e in events if e.kind == "replayed"] == [
        (ids[0], "prompts"),
        (ids[1], "rollouts"),
    ]
    assert sum(e.kind == "trained" for e in events) == 4
    assert await queues.credits_in_use() == 0
    assert (await queues.counters(1))["sampled"] == 4


async def test_what_fails_again_has_all_its_tries_again(
    queues: RunQueues, store: EpisodeStore
) -> None:
    assert await store.replay(0) == 2
    (item,) = await queues.take("prompts", "c", 1, 0.0)
    assert not await queues.fail("prompts", item, "once more")
    await bury(queues, "prompts")
    (letter,) = await queues.dead_letters()
    assert (letter.prompt_id, letter.failures, letter.deaths) == (item.prompt_id, 2, 0)
    assert await queues.dropped(1) == {item.prompt_id: "DEAD_LETTER"}
    assert await store.replay(1) == 1
    events = [e.kind for e in await queues.ledger(1) if e.id == item.prompt_id]
    assert events == ["dispatched", "dropped", "replayed", "dropped", "replayed"]


async def test_an_episode_that_is_trained_takes_nothing_back(
    queues: RunQueues, store: EpisodeStore
) -> None:
    await work_off(queues)
    await store.move(1, State.TRAINING)
    before = await store.get(1)
    words = (
        "episode 1 is TRAINING: dead letters are tried again only while it is SAMPLING, PAUSING or"
        " PAUSED; what it lost is in dead_letters.jsonl"
    )
    with pytest.raises(StateError) as caught:
        await store.replay(1)
    assert str(caught.value) == words
    assert await store.replay(0) == 0
    assert (await store.get(1), len(await queues.dead_letters())) == (before, 2)
    with pytest.raises(StateError, match="episode 2 is PENDING: "):
        await store.replay(2)
    with pytest.raises(UnknownEpisodeError):
        await store.replay(3)


async def test_a_replay_holds_the_training_back_until_it_is_done(
    queues: RunQueues, store: EpisodeStore
) -> None:
    await work_off(queues)
    await store.replay(1)
    with pytest.raises(StateError, match="still to be sampled"):
        await store.move(1, State.TRAINING)
    await work_off(queues)
    assert state_of(await store.move(1, State.TRAINING)) == State.TRAINING


async def test_a_pause_does_not_hold_what_was_dispatched_before(
    queues: RunQueues, store: EpisodeStore
) -> None:
    await store.pause(1, Change(request_id="p", reason="a look"))
    await work_off(queues)
    assert state_of(await store.get(1)) == State.PAUSED
    assert await store.replay(1) == 2
    episode = await store.get(1)
    assert (state_of(episode), episode.in_flight) == (State.PAUSED, 2)
    await work_off(queues)
    episode = await store.resume(1, Change(request_id="r", reason="mended"))
    assert (state_of(episode), episode.paired, episode.in_flight) == (State.SAMPLING, 4, 0)


async def test_what_a_checkpoint_dropped_is_no_dead_letter_to_replay(
    queues: RunQueues, store: EpisodeStore
) -> None:
    """Redis fell back behind the training, and has the letter still."""
    await store.replay(1)
    for item in await queues.take("prompts", "b", 9, 0.0):
        await queues.commit_rollout(item, rollout_of(item))
    for item in await queues.take("rollouts", "q", 9, 0.0):
        await queues.fail("rollouts", item, "no score")
    for item in await queues.take("rollouts", "q", 9, 0.0):
        await queues.fail("rollouts", item, "no score")
    ids = [prompt.id for prompt in prompts(store.run, 4)]
    await queues.commit_trained(1, 1, ids[1:], {ids[0]: "TIE"})
    redis = store._records._client._redis
    await redis.hset(queues._keys.episode(1), "state", "SAMPLING")
    assert await store.replay(1) == 0
    assert len(await queues.dead_letters()) == 4
    assert ledger_audit(await queues.ledger(1), {1: ids}) == []


async def test_the_same_command_tries_again_what_a_failed_episode_lost(
    queues: RunQueues, store: EpisodeStore
) -> None:
    assert await try_failed_again(store) == ""
    await store.move(1, State.FAILED, Change(reason="2 of 4 prompts were lost"))
    assert (await store.get(1)).error == "2 of 4 prompts were lost"
    said = await try_failed_again(store)
    assert said == "episode 1 had failed: 2 prompts that it lost are tried again"
    episode = await store.get(1)
    assert (state_of(episode), episode.in_flight, episode.error) == (State.SAMPLING, 4, "")
    assert await try_failed_again(store) == ""
    await work_off(queues)
    assert (await store.get(1)).paired == 4


async def test_a_failed_episode_without_a_dead_letter_stays_failed(
    redis_url: str, store: EpisodeStore
) -> None:
    queues = await RunQueues.open(redis_url, store.run, SETTINGS)
    await queues.dispatch(1, prompts(store.run, 1))
    (item,) = await queues.take("prompts", "a", 1, 0.0)
    await queues.commit_rollout(item, rollout_of(item))
    (item,) = await queues.take("rollouts", "p", 1, 0.0)
    await queues.commit_drop(item, DROP_REASON_TIE)
    await store.move(1, State.FAILED, Change(reason="too old"))
    assert await try_failed_again(store) == ""
    assert state_of(await store.get(1)) == State.FAILED
    await queues.close()


class Broken(Checker):
    """A judge that is down for some of the prompts."""

    async def score(self, prompt: Prompt, samples: Sequence[Sample]) -> list[Score]:
        if prompt.index % 3 == 0:
            raise ValueError("the judge is down")
        return await super().score(prompt, samples)


async def test_a_run_that_failed_goes_on_once_its_reward_is_mended(
    redis_url: str, run_name: str
) -> None:
    async with world(redis_url, run_name, FakeEngine(worker_id="rollout-0")) as here:
        with pytest.raises(WorkerError, match=r"the judge is down; .* the same command tries them"):
            await here.play(scorer=Broken())
        paired = {pair.id for pair in await here.queues.pairs(1)}
    async with world(redis_url, run_name, FakeEngine(worker_id="rollout-0")) as here:
        assert "are tried again" in await try_failed_again(here.store)
        await here.play()
        events = await here.ledger()
        assert ledger_audit(events, here.planned()) == []
        assert await here.queues.dead_letters() == []
        assert paired <= set(here.trained[1])
        counters = [await here.queues.counters(n) for n in range(1, EPISODES.count + 1)]
    assert any(event.kind == "replayed" for event in events)
    trained = [event.id for event in events if event.kind == "trained"]
    assert len(trained) == len(set(trained)) == sum(c["trained"] for c in counters)
    assert not any("dropped:DEAD_LETTER" in c for c in counters)
