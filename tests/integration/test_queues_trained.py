"""What a checkpoint says against what Redis has; and where a finished episode's ledger goes."""

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestrator.episodes import EpisodeStore, State
from orchestrator.online.archive import LedgerArchive
from pairloop.data.v1.pair_pb2 import DROP_REASON_TIE
from services.errors import LedgerError
from services.queues.ledger import ledger_audit
from services.queues.ledger_file import read_ledger_file
from services.queues.queues import RunQueues
from services.queues.settings import QueueSettings
from services.states import state_of
from tests.integration.test_queues import pair_of, prompts, rollout_of

COUNT = 300  # more than one batch of outcomes


@pytest.fixture
async def store(redis_url: str, run_name: str) -> AsyncIterator[EpisodeStore]:
    store = await EpisodeStore.open(redis_url, run_name, 5.0)
    await store.create(2, COUNT)
    await store.move(1, State.SAMPLING)
    yield store
    await store.close()


@pytest.fixture
async def queues(redis_url: str, store: EpisodeStore) -> AsyncIterator[RunQueues]:
    """Episode 1 is paired, every prompt of it."""
    queues = await RunQueues.open(redis_url, store.run, QueueSettings())
    await queues.dispatch(1, prompts(store.run, COUNT))
    for item in await queues.take("prompts", "a", COUNT, 0.0):
        await queues.commit_rollout(item, rollout_of(item))
    for item in await queues.take("rollouts", "p", COUNT, 0.0):
        await queues.commit_pair(item, pair_of(item))
    yield queues
    await queues.close()


async def ids_of(queues: RunQueues) -> list[str]:
    return [pair.id for pair in await queues.pairs(1)]


async def test_what_was_left_out_is_dropped_with_its_reason(
    queues: RunQueues, store: EpisodeStore
) -> None:
    too_long, not_reached, *ids = await ids_of(queues)
    left_out = {too_long: "TOO_LONG", not_reached: "NOT_REACHED"}
    assert await queues.commit_trained(1, 1, ids, left_out) == COUNT - 2
    assert await queues.commit_trained(1, 1, ids, left_out) == 0
    assert ledger_audit(await queues.ledger(1), {1: [too_long, not_reached, *ids]}) == []
    episode = await store.get(1)
    assert dict(episode.dropped) == {"TOO_LONG": 1, "NOT_REACHED": 1}
    assert (episode.paired, episode.trained, episode.in_flight) == (COUNT - 2, COUNT - 2, 0)
    assert await queues.credits_in_use() == 0
    assert await queues.pairs(1) == []


async def test_a_pair_that_the_checkpoint_does_not_name_is_not_let_go(queues: RunQueues) -> None:
    first, *ids = await ids_of(queues)
    with pytest.raises(LedgerError, match=f"there are {COUNT} paired, {COUNT - 1} trained"):
        await queues.commit_trained(1, 1, ids, {})
    assert first in await ids_of(queues)


async def test_a_prompt_in_flight_that_the_checkpoint_does_not_name_is_a_contradiction(
    redis_url: str, store: EpisodeStore
) -> None:
    queues = await RunQueues.open(redis_url, store.run, QueueSettings())
    await queues.dispatch(1, prompts(store.run, 1))
    with pytest.raises(LedgerError, match="0 paired, 0 trained, 1 in flight"):
        await queues.commit_trained(1, 1, [], {})
    assert (await store.get(1)).in_flight == 1
    await queues.close()


async def test_a_checkpoint_that_names_another_pair_is_refused(queues: RunQueues) -> None:
    ids = await ids_of(queues)
    await queues.commit_trained(1, 1, ids, {})
    with pytest.raises(LedgerError, match=f"prompt {ids[0]} is trained there"):
        await queues.commit_trained(1, 1, ids[1:], {ids[0]: "TOO_LONG"})


async def test_what_redis_lost_is_made_good_from_the_checkpoint(
    redis_url: str, store: EpisodeStore
) -> None:
    """Each prompt at another step, one not even dispatched, one that ended otherwise since."""
    queues = await RunQueues.open(redis_url, store.run, QueueSettings())
    work = prompts(store.run, 6)
    await queues.dispatch(1, work[:5])
    items = await queues.take("prompts", "a", 4, 0.0)
    for item in items[:3]:
        await queues.commit_rollout(item, rollout_of(item))
    first, second, *_ = await queues.take("rollouts", "p", 2, 0.0)
    await queues.commit_pair(first, pair_of(first))
    await queues.commit_drop(second, DROP_REASON_TIE)
    ids = [prompt.id for prompt in work]
    trained, dropped = ids[:5], {ids[5]: "MARGIN"}
    assert await queues.commit_trained(1, 1, trained, dropped) == 5
    assert await queues.commit_trained(1, 1, trained, dropped) == 0
    events = await queues.ledger(1)
    assert ledger_audit(events, {1: ids}) == []
    assert Counter(event.kind for event in events)["restored"] == 5
    episode = await store.get(1)
    assert (episode.dispatched, episode.in_flight, episode.paired, episode.trained) == (6, 0, 5, 5)
    assert dict(episode.dropped) == {"MARGIN": 1}
    assert await queues.credits_in_use() == 0
    assert state_of(episode) == State.TRAINING
    # Nothing of it is left to be done once more, and what is still being done has no effect.
    assert await queues.take("prompts", "b", 9, 0.0) == []
    assert await queues.take("rollouts", "q", 9, 0.0) == []
    assert not await queues.commit_rollout(items[3], rollout_of(items[3]))
    await queues.close()


async def test_a_finished_episode_leaves_its_state_alone(
    redis_url: str, queues: RunQueues, store: EpisodeStore, tmp_path: Path
) -> None:
    ids = await ids_of(queues)
    archive = LedgerArchive(tmp_path, queues, lambda episode: ids, print)
    with pytest.raises(LedgerError, match="never trained or dropped"):
        await archive.put_away(1)  # too early: nothing is forgotten
    await queues.commit_trained(1, 1, ids, {})
    for to in (State.PUBLISHING, State.COMPLETED):
        await store.move(1, to)
    events = await queues.ledger(1)
    for _ in range(2):
        await archive.put_away(1)
    assert await queues.ledger(1) == []
    assert list(read_ledger_file(tmp_path / "ledger" / "episode-00001.jsonl.gz")) == events
    # A learner that was cut off commits its last episode once more.
    assert await queues.commit_trained(1, 1, ids, {}) == 0
    assert (await store.get(1)).trained == COUNT
    archive.join(1, 2, None, tmp_path / "whole.jsonl.gz")
    assert list(read_ledger_file(tmp_path / "whole.jsonl.gz")) == events


async def test_a_plan_that_redis_knows_nothing_of_is_no_clean_ledger(
    queues: RunQueues, tmp_path: Path
) -> None:
    archive = LedgerArchive(tmp_path, queues, lambda episode: ["a", "b"], print)
    with pytest.raises(LedgerError, match=r"a: never dispatched \(2 problems\)"):
        await archive.put_away(2)
