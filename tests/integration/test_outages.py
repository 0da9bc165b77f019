"""A server that goes away, or takes no writes, under callers that wait for it."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from redis.asyncio import Redis

from orchestrator.episodes import EpisodeStore, State
from services.errors import ResourceError, UnreachableError
from services.queues.address import RunRedis
from services.queues.client import Patience
from services.queues.embedded import EmbeddedRedis
from services.queues.queues import RunQueues
from services.queues.settings import QueueSettings
from tests.integration.test_queues import prompts

AWAY_S = 2.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    server = EmbeddedRedis.start(tmp_path / "redis", "always")
    yield server
    server.stop()


async def opened(
    url: str, outage_s: float, told: list[str] | None = None
) -> tuple[RunQueues, EpisodeStore]:
    tell = told.append if told is not None else lambda text: None
    store = await EpisodeStore.open(url, "run", 5.0, 0, Patience(outage_s, tell))
    queues = await RunQueues.open(url, "run", QueueSettings(outage_s=outage_s))
    return queues, store


async def sampling(
    server: EmbeddedRedis, told: list[str] | None = None
) -> tuple[RunQueues, EpisodeStore]:
    """Two episodes of two prompts, the first of which samples."""
    queues, store = await opened(server.url, 60.0, told)
    await store.create(2, 2)
    await store.move(1, State.SAMPLING)
    return queues, store


async def ended(server: EmbeddedRedis) -> None:
    os.kill(server.pid, signal.SIGKILL)
    while server.alive:
        await asyncio.sleep(0.01)


async def test_everybody_waits_for_a_server_that_ended_and_the_run_says_so(
    server: EmbeddedRedis,
) -> None:
    told: list[str] = []
    queues, store = await sampling(server, told)
    taking = asyncio.create_task(queues.take("prompts", "a", 2, 60.0))
    await asyncio.sleep(0.2)
    await ended(server)
    looking = asyncio.create_task(store.get(1))
    dispatching = asyncio.create_task(queues.dispatch(1, prompts("run", 2)))
    await asyncio.sleep(AWAY_S)
    assert not any(waiting.done() for waiting in (looking, dispatching, taking))
    await asyncio.to_thread(server.revive)
    async with asyncio.timeout(30):
        assert (await looking).prompts == 2
        assert (await dispatching).sent == 2
        assert len(await taking) == 2
    assert "does not answer; waiting until it is back" in told[0]
    assert told[1].startswith("Redis is back after ")
    await queues.close()
    await store.close()


async def test_who_joins_a_run_that_is_up_waits_for_a_server_that_ended(
    server: EmbeddedRedis,
) -> None:
    """As a worker in the place of one that died with the server."""
    await ended(server)
    patient = QueueSettings(outage_s=60.0)
    with pytest.raises(UnreachableError, match="does not answer"):
        await RunQueues.open(server.url, "run", patient)
    joining = asyncio.create_task(RunQueues.open(server.url, "run", patient, joining=True))
    await asyncio.sleep(AWAY_S)
    assert not joining.done()
    await asyncio.to_thread(server.revive)
    async with asyncio.timeout(30):
        queues = await joining
    assert await queues.credits_in_use() == 0
    await queues.close()


async def test_an_outage_longer_than_the_patience_is_an_error(server: EmbeddedRedis) -> None:
    queues, store = await opened(server.url, 1.0)
    await ended(server)
    began = time.monotonic()
    with pytest.raises(UnreachableError, match=r"does not answer: start it, correct queues\.url"):
        await queues.credits_in_use()
    assert time.monotonic() - began >= 1.0
    await queues.close()
    await store.close()


async def test_the_run_starts_its_own_server_again(server: EmbeddedRedis) -> None:
    told: list[str] = []
    keeping = asyncio.create_task(RunRedis(server.url, server).keep_up(told.append))
    queues, store = await opened(server.url, 60.0)
    await store.create(1, 2)
    await ended(server)
    async with asyncio.timeout(30):
        assert (await store.get(1)).prompts == 2
    assert told == ["the embedded Redis ended; it is started again on its data"]
    keeping.cancel()
    await queues.close()
    await store.close()


async def test_a_server_that_takes_no_writes_for_now_is_waited_for(server: EmbeddedRedis) -> None:
    """As a primary that was demoted, or lost its replicas."""
    queues, store = await sampling(server)
    async with Redis.from_url(server.url) as admin:
        await admin.config_set("min-replicas-to-write", 1)
        moving = asyncio.create_task(store.move(2, State.SAMPLING))
        await asyncio.sleep(AWAY_S)
        assert not moving.done()
        await admin.config_set("min-replicas-to-write", 0)
    async with asyncio.timeout(30):
        await moving
    await queues.close()
    await store.close()


async def test_a_primary_that_was_demoted_is_waited_for_whatever_the_command(
    server: EmbeddedRedis,
) -> None:
    queues, store = await sampling(server)
    async with Redis.from_url(server.url) as admin:
        await admin.replicaof("127.0.0.1", 1)
        waiting = [
            asyncio.create_task(call)
            for call in (queues.published(1, 1), queues.expire(60), store.move(2, State.SAMPLING))
        ]
        await asyncio.sleep(AWAY_S)
        assert not any(task.done() for task in waiting)
        await admin.replicaof("NO", "ONE")
    async with asyncio.timeout(30):
        await asyncio.gather(*waiting)
    await queues.close()
    await store.close()


async def test_a_call_whose_connection_another_call_closes_is_made_again(
    server: EmbeddedRedis,
) -> None:
    """redis-py then fails by what it misses: an AttributeError."""
    queues, store = await opened(server.url, 60.0)
    pool = cast(Redis, queues._client._redis).connection_pool

    async def close_all() -> None:
        while True:
            await asyncio.sleep(0.0005)
            await pool.disconnect()

    closing = asyncio.create_task(close_all())
    asking = [asyncio.create_task(queues.credits_in_use()) for _ in range(200)]
    await asyncio.sleep(1.0)
    closing.cancel()
    async with asyncio.timeout(30):
        assert await asyncio.gather(*asking) == [0] * 200
    await queues.close()
    await store.close()


async def test_a_server_without_memory_says_what_to_do_in_one_line(server: EmbeddedRedis) -> None:
    queues, store = await sampling(server)
    async with Redis.from_url(server.url) as admin:
        await admin.config_set("maxmemory", 1)
        with pytest.raises(ResourceError, match=r"cannot write: .*: give it memory"):
            await queues.dispatch(1, prompts("run", 2))
        await admin.config_set("maxmemory", 0)
    await queues.close()
    await store.close()


async def test_a_stream_that_the_server_lost_is_made_again(server: EmbeddedRedis) -> None:
    queues, store = await sampling(server)
    async with Redis.from_url(server.url) as admin:
        await admin.delete(*await admin.keys("*:prompts"))
    assert await queues.take("prompts", "a", 1, 0.0) == []
    assert (await queues.dispatch(1, prompts("run", 2))).sent == 2
    assert len(await queues.take("prompts", "a", 2, 0.0)) == 2
    await queues.close()
    await store.close()
