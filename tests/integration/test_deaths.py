"""A process of a real Ray that is killed or stopped is seen to be, and comes back as a new one."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import psutil
import pytest
import ray

from orchestrator.online.healing import Budget, Reborn, reborn
from orchestrator.online.publishing import StorePublisher
from orchestrator.online.settings import RestartSettings
from orchestrator.online.supervision import heartbeat
from services.errors import WorkerDiedError, WorkerError
from services.learner.online.ports import WeightVersion
from services.telemetry.record.events import Note
from services.telemetry.record.sink import Reporter, start_sink
from services.weights.version_store import VersionStoreHandle, start_version_store


def pid_of(title: str, but: int = 0) -> int:
    for process in psutil.Process().children(recursive=True):
        try:
            if title in " ".join(process.cmdline()) and process.pid != but:
                return process.pid
        except psutil.Error:  # ended meanwhile
            continue
    raise AssertionError(f"no process is called {title}")


@asynccontextmanager
async def kept(part: Reborn, silence_s: float = 60.0, count: int = 5) -> AsyncIterator[Any]:
    """The part, looked after; what is said of it, and the task that does it."""
    said: list[str] = []
    settings = RestartSettings(count=count, backoff_s=0, silence_s=silence_s)
    keeping = asyncio.ensure_future(reborn(part, Budget(settings, "online", said.append)))
    try:
        await asyncio.sleep(0)  # it asks first which process there is
        await part.ping()
        yield said, keeping
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


async def told(said: list[str], keeping: "asyncio.Future[None]") -> None:
    async with asyncio.timeout(60):
        while not said and not keeping.done():
            await asyncio.sleep(0.05)


def weights(number: int, publish: StorePublisher) -> WeightVersion:
    shared = publish.share(iter({"a": np.full(8, number, np.float32)}.items()))
    return WeightVersion(
        "run", number, number, "float32", shared.tensors, shared.changed, [1, 2], [-1.0], 0.1, {}
    )  # fmt: skip


async def read(store: VersionStoreHandle, version: int) -> float:
    held = await store.wait(version, timeout_s=60.0)
    return float(ray.get(held.refs["a"])[0])


async def test_a_killed_version_store_comes_back_and_the_learner_offers_its_version_again(
    cluster: None,
) -> None:
    store = start_version_store()
    publish = StorePublisher(store.actor)
    async with kept(store) as (said, keeping):
        await asyncio.to_thread(lambda: publish(weights(7, publish)))
        assert await read(store, 7) == 7.0
        waiting = asyncio.ensure_future(read(store, 8))
        await asyncio.sleep(0.1)
        os.kill(pid_of("ray::VersionStore"), signal.SIGKILL)
        await asyncio.to_thread(publish.look)  # of the learner, who waits for its pairs
        assert await read(store, 7) == 7.0
        await asyncio.to_thread(lambda: publish(weights(8, publish)))
        assert await waiting == 8.0  # asked for before its death, answered after it
        await told(said, keeping)
    assert said == [
        "the weight version store died: its process was killed or crashed; it is replaced"
    ]
    store.kill()


async def test_a_version_that_was_withdrawn_is_not_offered_again(cluster: None) -> None:
    store = start_version_store()
    publish = StorePublisher(store.actor)
    await asyncio.to_thread(lambda: publish(weights(1, publish)))
    await asyncio.to_thread(lambda: weights(2, publish))  # shared, and not published yet
    await asyncio.to_thread(publish.look)
    assert await store.actor.number.remote() == -1
    store.kill()


async def test_a_store_that_hangs_is_ended_and_comes_back(cluster: None) -> None:
    store = start_version_store()
    async with kept(store, silence_s=2.0) as (said, keeping):
        before = await store.ping()
        os.kill(pid_of("ray::VersionStore"), signal.SIGSTOP)
        await told(said, keeping)
        async with asyncio.timeout(60):
            assert await store.ping() != before
    assert said == ["the weight version store did not answer for 2 s; it is replaced"]
    store.kill()


async def test_what_dies_more_often_than_its_budget_allows_ends_the_run(cluster: None) -> None:
    store = start_version_store()
    async with kept(store, count=1) as (said, keeping):
        os.kill(first := pid_of("ray::VersionStore"), signal.SIGKILL)
        await told(said, keeping)
        await store.ping()
        os.kill(pid_of("ray::VersionStore", but=first), signal.SIGKILL)
        with pytest.raises(WorkerError, match="was replaced 1 times within 3600 s"):
            await asyncio.wait_for(keeping, 60)
    store.kill()


async def test_a_killed_event_sink_comes_back_and_takes_events_again(cluster: None) -> None:
    sink = start_sink()
    report = Reporter(sink.actor)
    async with kept(sink) as (said, keeping):
        taking = asyncio.ensure_future(sink.take(60.0))
        await asyncio.sleep(0.1)
        os.kill(pid_of("ray::EventSink"), signal.SIGKILL)
        await told(said, keeping)
        report(Note(text="after it"))
        assert await taking == [Note(text="after it")]
    sink.kill()


async def test_an_actor_that_is_ended_for_good_is_seen_by_its_heartbeat(cluster: None) -> None:
    store = start_version_store()
    await store.ping()
    store.kill()
    with pytest.raises(WorkerDiedError, match=r"version store died: it was ended by ray\.kill"):
        await heartbeat(store.name, store.ping, lambda: 60.0, every_s=0.1)
