"""Redis forgets a run that nobody goes on with, and none that somebody does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NoReturn

import pytest
from redis.asyncio import Redis

from orchestrator.episodes import EpisodeStore, State
from pairloop.admin.v1.admin_pb2 import Change
from pairloop.data.v1.pair_pb2 import PreferencePair
from pairloop.data.v1.rollout_pb2 import Prompt, Rollout
from services.errors import ReplacedError
from services.queues.keys import Keys
from services.queues.queues import RunQueues
from services.queues.run_lease import RunLease
from services.queues.settings import QueueSettings

DAY = 86_400
SETTINGS = QueueSettings(expire_s=30 * DAY, max_failures=1)
FOREVER = -1


@asynccontextmanager
async def held(
    url: str, run: str, settings: QueueSettings = SETTINGS
) -> AsyncIterator[tuple[RunQueues, EpisodeStore]]:
    """A run with its orchestrator's lease, as long as it lives."""
    lease = await RunLease.take(url, run, 60.0, 5.0)
    queues = await RunQueues.open(url, run, settings, lease.epoch)
    store = await EpisodeStore.open(url, run, 5.0, lease.epoch)
    await store.create(2, 3)
    keeping = asyncio.create_task(queues.keep())
    renewing = asyncio.create_task(lease.keep())
    try:
        while settings.expire_s and (await terms(url, run))[Keys(run).epoch] == FOREVER:
            await asyncio.sleep(0.005)
        yield queues, store
    finally:
        await ended(keeping, renewing)
        await queues.close()
        await store.close()
        await lease._client.close()  # as one that is killed: nothing is said to the others


async def ended(*tasks: "asyncio.Task[NoReturn]") -> None:
    """What works for ever is over."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def terms(url: str, run: str) -> dict[str, int]:
    """Seconds that each key of the run has to live."""
    async with Redis.from_url(url) as server:
        names = [key.decode() async for key in server.scan_iter(match=Keys(run).prefix + "*")]
        return {name: await server.ttl(name) for name in names}


async def work(queues: RunQueues, store: EpisodeStore) -> None:
    """Something of everything that a run has in Redis, a worker that died included."""
    run = store.run
    await store.move(1, State.SAMPLING)
    ids = [f"{run}/e1/p{index}" for index in range(3)]
    await queues.dispatch(
        1, [Prompt(id=id_, run=run, episode=1, index=index) for index, id_ in enumerate(ids)]
    )
    await queues.take("prompts", "gone", 9, 0.0)
    await queues.give_back("prompts", "gone", died=True)
    items = await queues.take("prompts", "a", 9, 0.0)
    await queues.fail("prompts", items[0], "no")
    for item in items[1:]:
        prompt = Prompt.FromString(item.payload)
        await queues.commit_rollout(item, Rollout(prompt=prompt))
    (item, _) = await queues.take("rollouts", "gone too", 9, 0.0)
    await queues.commit_pair(item, PreferencePair(id=item.prompt_id))
    await queues.give_back("rollouts", "gone too", died=True)
    await store.pause(1, Change(request_id="r", reason="a look"))
    await queues.published(0, 0)


async def test_every_key_of_a_run_that_nobody_goes_on_with_ends(
    redis_url: str, run_name: str
) -> None:
    async with held(redis_url, run_name) as (queues, store):
        await work(queues, store)
    found = await terms(redis_url, run_name)
    keys = Keys(run_name)
    lease = found.pop(keys.lease)
    assert 0 < lease <= 60
    assert {name for name, left in found.items() if not 0 < left <= 30 * DAY} == set()
    # By their names nothing is missed; some are not there yet, or no more.
    assert set(found) <= set(keys.every(2))
    assert {keys.pairs(1), keys.dead, keys.fenced, keys.requests, keys.layout} <= set(found)
    assert {keys.tries("rollouts"), keys.ledger(0), keys.ledger(1), keys.steps(1)} <= set(found)


async def test_whoever_goes_on_with_a_run_renews_it(redis_url: str, run_name: str) -> None:
    async with held(redis_url, run_name) as (queues, store):
        await work(queues, store)
        await queues.expire(DAY)
    assert max((await terms(redis_url, run_name)).values()) <= DAY
    async with Redis.from_url(redis_url) as server:
        await server.delete(Keys(run_name).lease)  # its term ran out
    renewed = SETTINGS.model_copy(update={"expire_s": 7 * DAY})
    lease = await RunLease.take(redis_url, run_name, 60.0, 5.0)
    queues = await RunQueues.open(redis_url, run_name, renewed, lease.epoch)
    keeping = asyncio.create_task(queues.keep())
    async with asyncio.timeout(20):
        while (await terms(redis_url, run_name))[Keys(run_name).pairs(1)] <= DAY:
            await asyncio.sleep(0.005)
    found = await terms(redis_url, run_name)
    assert found.pop(Keys(run_name).lease) <= 60
    assert {name for name, left in found.items() if not DAY < left <= 7 * DAY} == set()
    await ended(keeping)
    await queues.close()
    await lease.end()


async def test_a_lease_that_is_renewed_leaves_the_term_alone(redis_url: str, run_name: str) -> None:
    lease = await RunLease.take(redis_url, run_name, 0.1, 5.0)
    queues = await RunQueues.open(redis_url, run_name, SETTINGS, lease.epoch)
    await queues.expire(DAY)
    keeping = asyncio.create_task(lease.keep())
    await asyncio.sleep(0.3)
    assert 0 < (await terms(redis_url, run_name))[Keys(run_name).epoch] <= DAY
    await ended(keeping)
    await queues.close()
    await lease.end()


@pytest.mark.parametrize("before", [DAY, None])
async def test_a_run_may_be_kept_for_ever(
    redis_url: str, run_name: str, before: int | None
) -> None:
    for_ever = SETTINGS.model_copy(update={"expire_s": 0})
    if before:
        queues = await RunQueues.open(redis_url, run_name, SETTINGS)
        await queues.expire(before)
        await queues.close()
    async with held(redis_url, run_name, for_ever) as (queues, store):
        async with asyncio.timeout(20):
            while (await terms(redis_url, run_name))[Keys(run_name).stream("prompts")] != FOREVER:
                await asyncio.sleep(0.005)
        await work(queues, store)
    found = await terms(redis_url, run_name)
    found.pop(Keys(run_name).lease)
    assert set(found.values()) == {FOREVER}


async def test_an_orchestrator_that_was_replaced_renews_nothing(
    redis_url: str, run_name: str
) -> None:
    async with held(redis_url, run_name) as (queues, store):
        await work(queues, store)
        async with Redis.from_url(redis_url) as server:
            await server.incr(Keys(run_name).epoch)
        with pytest.raises(ReplacedError, match="another orchestrator has taken this run over"):
            await queues.expire(DAY)
