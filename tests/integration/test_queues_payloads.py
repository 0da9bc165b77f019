"""Large payloads beside a real Redis: whatever they go through, and what becomes of a lost one."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from orchestrator.episodes import EpisodeStore, State
from orchestrator.online.archive import LedgerArchive
from orchestrator.online.dead_letters import DEAD_LETTERS, join_dead_letters
from pairloop.data.v1.rollout_pb2 import Prompt
from services.errors import DataError
from services.queues.keys import Keys
from services.queues.ledger import ledger_audit
from services.queues.payload_folder import PayloadFolder
from services.queues.queues import RunQueues
from services.queues.settings import QueueSettings
from tests.fake_payloads import FakePayloads
from tests.integration.redis_rows import all_sampled
from tests.integration.test_queues import pair_of, rollout_of

SETTINGS = QueueSettings(max_failures=2, retry_s=0.0, reclaim_idle_s=300.0, inline_bytes=1000)


def prompts(run: str, count: int) -> list[Prompt]:
    """The first is small, the others are not."""
    return [
        Prompt(id=f"{run}/e00001/p{i:05d}", run=run, episode=1, index=i, text="x" * 2000 * i)
        for i in range(count)
    ]


@pytest.fixture
async def store(redis_url: str, run_name: str) -> AsyncIterator[EpisodeStore]:
    store = await EpisodeStore.open(redis_url, run_name, 5.0)
    await store.create(2, 8)
    await store.move(1, State.SAMPLING)
    yield store
    await store.close()


@pytest.fixture
def files() -> FakePayloads:
    return FakePayloads()


@pytest.fixture
async def queues(
    redis_url: str, store: EpisodeStore, files: FakePayloads
) -> AsyncIterator[RunQueues]:
    queues = await RunQueues.open(redis_url, store.run, SETTINGS, payloads=files)
    yield queues
    await queues.close()


async def fields_of(redis_url: str, stream: str) -> list[str]:
    """How each entry of a stream has its payload."""
    async with Redis.from_url(redis_url) as server:
        return [list(fields)[-1].decode() for _, fields in await server.xrange(stream)]


async def test_large_payloads_go_all_the_way_beside_redis(
    redis_url: str, store: EpisodeStore, tmp_path: Path
) -> None:
    folder, keys = PayloadFolder(tmp_path), Keys(store.run)
    queues = await RunQueues.open(redis_url, store.run, SETTINGS, 0, folder)
    work = prompts(store.run, 3)
    for _ in range(2):
        await queues.dispatch(1, work)
    assert await fields_of(redis_url, keys.stream("prompts")) == ["payload", "ref", "ref"]
    items = await queues.take("prompts", "a", 1, 0.0)
    items += await queues.take("prompts", "a", 9, 0.0)
    assert [Prompt.FromString(item.payload) for item in items] == work
    # Another process finds what it had.
    other = await RunQueues.open(redis_url, store.run, SETTINGS, 0, PayloadFolder(tmp_path))
    again = await other.take("prompts", "a", 9, 0.0)
    assert [(item.payload, item.deaths) for item in again] == [(item.payload, 1) for item in items]
    for item in again:
        assert await other.commit_rollout(item, rollout_of(item))
        assert not await other.commit_rollout(item, rollout_of(item))
    assert await fields_of(redis_url, keys.stream("rollouts")) == ["payload", "ref", "ref"]
    items = await queues.take("rollouts", "p", 9, 0.0)
    for item in items:
        assert await queues.commit_pair(item, pair_of(item))
    assert await fields_of(redis_url, keys.pairs(1)) == ["payload", "ref", "ref"]
    assert await other.pairs(1) == [pair_of(item) for item in items]
    # Two prompts, rollouts and pairs, once each.
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 6
    assert await queues.commit_trained(1, 1, [prompt.id for prompt in work], {}) == 3
    assert ledger_audit(await queues.ledger(1), {1: [prompt.id for prompt in work]}) == []
    await other.close()
    await queues.close()


async def test_pairs_that_are_looked_at_again_and_again_are_read_once(
    queues: RunQueues, store: EpisodeStore, files: FakePayloads
) -> None:
    await queues.dispatch(1, prompts(store.run, 3))
    for item in await queues.take("prompts", "a", 9, 0.0):
        await queues.commit_rollout(item, rollout_of(item))
    items = await queues.take("rollouts", "p", 9, 0.0)
    files.reads.clear()
    for count, item in enumerate(items, start=1):
        await queues.commit_pair(item, pair_of(item))
        assert len(await queues.pairs(1)) == count
    assert len(files.reads) == len(set(files.reads)) == 2


async def test_a_payload_that_is_lost_is_a_failure_of_its_item(
    queues: RunQueues, store: EpisodeStore, files: FakePayloads
) -> None:
    work = prompts(store.run, 3)
    await queues.dispatch(1, work)
    lost = next(path for path in files.files if "p00001" in path)
    kept = files.files.pop(lost)
    (first, third) = await queues.take("prompts", "a", 9, 0.0)
    assert [first.prompt_id, third.prompt_id] == [work[0].id, work[2].id]
    files.files[lost] = kept  # a file system that was slow to show it
    (second,) = await queues.take("prompts", "a", 9, 0.0)
    assert Prompt.FromString(second.payload) == work[1]
    assert await queues.commit_rollout(second, rollout_of(second))
    files.files = {path: b"damaged" for path in files.files}
    assert await queues.take("rollouts", "p", 9, 0.0) == []
    assert await queues.take("rollouts", "p", 9, 0.0) == []
    (letter,) = await queues.dead_letters()
    assert (letter.stream, letter.prompt_id, letter.payload) == ("rollouts", work[1].id, b"")
    assert letter.error.startswith("DataError: payload memory/00001/p00001-")
    assert " is damaged (7 bytes of " in letter.error
    assert dict((await store.get(1)).dropped) == {"DEAD_LETTER": 1}


async def test_a_pair_that_is_lost_is_named_before_anything_is_trained(
    queues: RunQueues, store: EpisodeStore, files: FakePayloads
) -> None:
    await queues.dispatch(1, prompts(store.run, 2))
    for item in await queues.take("prompts", "a", 9, 0.0):
        await queues.commit_rollout(item, rollout_of(item))
    before = set(files.files)
    for item in await queues.take("rollouts", "p", 9, 0.0):
        await queues.commit_pair(item, pair_of(item))
    (path,) = set(files.files) - before
    del files.files[path]
    with pytest.raises(DataError, match=rf"^payload memory/{path} cannot be read .*--fresh$"):
        await queues.pairs(1)


async def test_dead_letters_are_read_and_leave_redis_with_their_episode(
    queues: RunQueues, store: EpisodeStore, files: FakePayloads, redis_url: str, tmp_path: Path
) -> None:
    work = prompts(store.run, 3)
    await queues.dispatch(1, work)
    for _ in range(SETTINGS.max_failures):
        for item in await queues.take("prompts", "a", 9, 0.0):
            await queues.fail("prompts", item, "no")
    dead = Keys(store.run).dead
    assert await fields_of(redis_url, dead) == ["payload", "ref", "ref"]
    letters = await queues.dead_letters()
    assert [Prompt.FromString(letter.payload) for letter in letters] == work
    ids = [prompt.id for prompt in work]
    await queues.commit_trained(1, 1, [], dict.fromkeys(ids, "DEAD_LETTER"))
    archive = LedgerArchive(tmp_path, queues, lambda episode: ids, print)
    assert not await archive.put_away(1)  # as where Redis fell back to before its end
    assert (len(await queues.ledger(1)) > 0, files.forgotten) == (True, [])
    for to in (State.PUBLISHING, State.COMPLETED):
        await store.move(1, to)
    assert await archive.put_away(1)
    assert (await fields_of(redis_url, dead), files.forgotten) == ([], [1])
    path = tmp_path / DEAD_LETTERS
    assert join_dead_letters(tmp_path, await queues.dead_letters(), path) == 3
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [len(row["prompt"].get("text", "")) for row in rows] == [0, 2000, 4000]


async def test_a_forgotten_episode_takes_no_letter_of_another_along(
    queues: RunQueues, store: EpisodeStore
) -> None:
    await all_sampled(store, 1)
    for to in (State.TRAINING, State.PUBLISHING, State.COMPLETED):
        await store.move(1, to)
    await store.move(2, State.SAMPLING)
    prompt = Prompt(id="second", run=store.run, episode=2, index=0)
    await queues.dispatch(2, [prompt])
    for _ in range(SETTINGS.max_failures):
        (item,) = await queues.take("prompts", "a", 9, 0.0)
        await queues.fail("prompts", item, "no")
    assert await queues.forget(1)
    assert not await queues.forget(2)
    assert [letter.prompt_id for letter in await queues.dead_letters()] == ["second"]


async def test_a_dead_letter_is_replayed_from_where_its_payload_lies(
    queues: RunQueues, store: EpisodeStore
) -> None:
    work = prompts(store.run, 2)
    await queues.dispatch(1, work)
    for _ in range(SETTINGS.max_failures):
        for item in await queues.take("prompts", "a", 2, 0.0):
            await queues.fail("prompts", item, "no such answer")
    assert [letter.prompt_id for letter in await store.dead_letters(1)] == [p.id for p in work]
    assert await store.replay(1) == 2
    again = await queues.take("prompts", "a", 2, 0.0)
    assert [Prompt.FromString(item.payload) for item in again] == work
