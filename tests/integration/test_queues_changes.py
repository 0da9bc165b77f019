"""What is announced, to whom, and what is taken without asking for what others left."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from orchestrator.episodes import EpisodeStore, State
from pairloop.admin.v1.admin_pb2 import Change
from services.errors import ReplacedError
from services.queues.items import Item
from services.queues.keys import GROUP, Keys
from services.queues.queues import RunQueues
from services.queues.settings import QueueSettings
from tests.integration.test_queues import pair_of, prompts, rollout_of

LONG = QueueSettings(credits=64, reclaim_idle_s=300.0, retry_s=100.0)
AT_LAST_S = 30.0
"""For what is announced: far more than any wait that such a test does in order."""


@pytest.fixture
async def store(redis_url: str, run_name: str) -> AsyncIterator[EpisodeStore]:
    store = await EpisodeStore.open(redis_url, run_name, 5.0)
    await store.create(1, 16)
    await store.move(1, State.SAMPLING)
    yield store
    await store.close()


@pytest.fixture
async def queues(redis_url: str, store: EpisodeStore) -> AsyncIterator[RunQueues]:
    queues = await RunQueues.open(redis_url, store.run, LONG)
    yield queues
    await queues.close()


async def newest(queues: RunQueues) -> str:
    """The last announcement."""
    return await queues._client.newest(queues._keys.changes, "0-0", 0.01)


async def announced(queues: RunQueues, before: str) -> bool:
    return await newest(queues) != before


async def read_as(queues: RunQueues, consumer: str) -> Item:
    """What a read that waits gives a consumer that was taken for dead since it began."""
    key = queues._keys.stream("prompts")
    ((entry, fields),) = await queues._client.read_group(key, GROUP, consumer, 1, 0)
    return Item(entry, fields[b"id"].decode(), 1, fields[b"payload"], consumer)


async def test_announced_is_what_somebody_waits_for_and_nothing_else(
    queues: RunQueues, store: EpisodeStore
) -> None:
    work = prompts(store.run, 16)
    await queues.dispatch(1, work)
    before = await newest(queues)
    for item in await queues.take("prompts", "a", 16, 0.0):
        await queues.commit_rollout(item, rollout_of(item))
    items = await queues.take("rollouts", "p", 16, 0.0)
    seen = []
    for item in items:
        await queues.commit_pair(item, pair_of(item))
        seen.append(await announced(queues, before))
        before = await newest(queues)
    # An eighth of 16 has ended, and all have.
    assert [number for number, told in enumerate(seen, start=1) if told] == [2, 16]
    for change in (
        store.move(1, State.TRAINING),
        queues.commit_trained(1, 1, [prompt.id for prompt in work], {}),
    ):
        before = await newest(queues)
        await change
        assert await announced(queues, before)


async def test_an_episode_that_is_paused_by_its_last_commit_is_announced(
    queues: RunQueues, store: EpisodeStore
) -> None:
    await queues.dispatch(1, prompts(store.run, 1))
    (item,) = await queues.take("prompts", "a", 1, 0.0)
    await queues.commit_rollout(item, rollout_of(item))
    (item,) = await queues.take("rollouts", "p", 1, 0.0)
    await store.pause(1, Change(request_id="p", reason="a look", actor="me"))
    before = await newest(queues)
    await queues.commit_pair(item, pair_of(item))
    assert await announced(queues, before)
    assert await queues.episode_state(1) == "PAUSED"


async def test_a_wait_ends_with_what_came_before_it_and_two_take_nothing_from_each_other(
    queues: RunQueues, store: EpisodeStore
) -> None:
    moved, looked = asyncio.Event(), asyncio.Queue[str]()

    async def waiter(name: str) -> None:
        await store.changed(0.001)  # what was before it looked the first time
        await looked.put(name)
        await moved.wait()
        await store.changed(AT_LAST_S)
        await looked.put(name)

    async with asyncio.timeout(AT_LAST_S / 2), asyncio.TaskGroup() as tasks:
        for name in "ab":
            tasks.create_task(waiter(name))
        assert {await looked.get(), await looked.get()} == {"a", "b"}
        await store.pause(1, Change(request_id="p", reason="a look", actor="me"))
        moved.set()
        assert {await looked.get(), await looked.get()} == {"a", "b"}


async def test_a_wait_without_a_change_is_over_when_its_time_is(store: EpisodeStore) -> None:
    await store.changed(0.001)
    async with asyncio.timeout(AT_LAST_S):
        await store.changed(0.05)


async def test_what_was_given_back_comes_before_what_is_new(
    redis_url: str, queues: RunQueues, store: EpisodeStore
) -> None:
    other = await RunQueues.open(redis_url, store.run, LONG)
    work = prompts(store.run, 3)
    assert await other.take("prompts", "other", 1, 0.0) == []  # it has looked for what is left
    await queues.dispatch(1, work[:1])
    await queues.take("prompts", "gone", 1, 0.0)
    await queues.give_back("prompts", "gone", died=True)
    await queues.dispatch(1, work)
    taken = [await other.take("prompts", "other", 1, 0.0) for _ in work]
    assert [(item.prompt_id, item.deaths) for (item,) in taken] == [
        (work[0].id, 1), (work[1].id, 0), (work[2].id, 0)
    ]  # fmt: skip
    await other.close()


async def test_what_waits_for_its_next_try_holds_up_nothing(
    queues: RunQueues, store: EpisodeStore
) -> None:
    work = prompts(store.run, 2)
    await queues.dispatch(1, work)
    (item,) = await queues.take("prompts", "a", 1, 0.0)
    await queues.fail("prompts", item, "not now")
    assert [i.prompt_id for i in await queues.take("prompts", "a", 2, 0.0)] == [work[1].id]


async def test_what_a_dead_consumer_took_in_its_last_read_goes_to_others_when_it_is_heard_of(
    redis_url: str, queues: RunQueues, store: EpisodeStore
) -> None:
    zombie = await RunQueues.open(redis_url, store.run, LONG)
    await queues.give_back("prompts", "zombie", died=True)
    await queues.dispatch(1, prompts(store.run, 1))
    item = await read_as(zombie, "zombie")
    with pytest.raises(ReplacedError, match="taken for dead"):
        await zombie.commit_rollout(item, rollout_of(item))
    (again,) = await queues.take("prompts", "a", 1, 0.0)
    assert (again.entry_id, again.deaths) == (item.entry_id, 0)
    # What it held is another's by now: it gives back nothing of that.
    with pytest.raises(ReplacedError):
        await zombie.commit_rollout(item, rollout_of(item))
    assert await queues.commit_rollout(again, rollout_of(again))
    await zombie.close()


async def test_a_dead_consumer_renews_nothing(queues: RunQueues, store: EpisodeStore) -> None:
    await queues.give_back("prompts", "zombie", died=True)
    await queues.dispatch(1, prompts(store.run, 1))
    item = await read_as(queues, "zombie")
    keys = Keys(store.run)
    renewed = [keys.stream("prompts"), keys.fenced]
    lost = await queues._client.script("renew", renewed, [GROUP, item.entry_id, "zombie"])
    assert lost == [item.entry_id.encode()]
    (again,) = await queues.take("prompts", "a", 1, 0.0)
    assert (again.entry_id, again.deaths) == (item.entry_id, 0)
