"""What servers ask of runs that are other processes: by letters that wait in Redis."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from orchestrator.control.live import LiveRun
from orchestrator.control.registration import listed
from orchestrator.control.runs import RedisRuns
from orchestrator.episodes import EpisodeStore, State
from orchestrator.online.staleness import Staleness
from orchestrator.online.wanted import WantedFile
from pairloop.admin.v1 import admin_pb2 as messages
from pairloop.admin.v1.admin_pb2_grpc import AdminServiceStub
from services.queues.registry import Registry
from tests.integration.conftest import FakeWorkers, live_run, serving


@contextlib.asynccontextmanager
async def elsewhere(url: str) -> AsyncIterator[AdminServiceStub]:
    """The API of a server that is no run's process."""
    runs = await RedisRuns.open(url, 5.0)
    async with serving(runs) as (_, address), grpc.aio.insecure_channel(address) as channel:
        yield AdminServiceStub(channel)  # type: ignore[no-untyped-call]
    await runs.close()


@contextlib.asynccontextmanager
async def going_on(live: LiveRun, url: str) -> AsyncIterator[None]:
    """As a run does; until it is listed."""
    registry = await Registry.open(url, 5.0)
    async with listed(live, url, print):
        while all(run.id != live.own.id or run.state == 0 for run in await registry.runs()):
            await asyncio.sleep(0.02)
        yield
    await registry.close()


def fields(run: str, request_id: str, reason: str = "r") -> dict[str, str]:
    return {"run": run, "reason": reason, "request_id": request_id}


async def test_a_run_is_paused_resumed_and_stopped_from_elsewhere(
    redis_url: str, store: EpisodeStore, tmp_path: Path
) -> None:
    stopped = asyncio.Event()
    live = live_run(store.run, tmp_path)
    live.stop = stopped.set
    live.url = redis_url
    async with elsewhere(redis_url) as admin, going_on(live, redis_url), live.hold.over(store):
        pause = messages.PauseRunRequest(**fields(store.run, "1", "a look"))
        paused = await admin.PauseRun(pause, timeout=20)
        assert paused.note == ""
        assert live.hold.wanted
        assert live.own.state == messages.RUN_STATE_PAUSING
        assert live.own.last_change.reason == "a look"
        held = await store.get(1)
        assert (
            messages.EpisodeState.Name(held.state).removeprefix("EPISODE_STATE_"),
            held.last_change.reason,
        ) == (State.PAUSED, "a look")
        again = await admin.PauseRun(pause, timeout=20)
        assert again.note == ""
        assert (await store.get(1)).last_change == held.last_change

        resumed = messages.ResumeRunRequest(**fields(store.run, "2"))
        await admin.ResumeRun(resumed, timeout=20)
        assert not live.hold.wanted
        assert live.own.state == messages.RUN_STATE_RUNNING
        assert (await store.get(1)).state == messages.EPISODE_STATE_PENDING

        for call, code, text in (
            (
                admin.ResumeRun(messages.ResumeRunRequest(**fields(store.run, "3")), timeout=20),
                grpc.StatusCode.FAILED_PRECONDITION,
                "the run is not paused",
            ),
            (
                admin.StopRun(messages.StopRunRequest(**fields(store.run, "1")), timeout=20),
                grpc.StatusCode.FAILED_PRECONDITION,
                "request id 1 was used for another change: use a new one",
            ),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert (caught.value.code(), caught.value.details()) == (code, text)
        assert not stopped.is_set()
        await admin.StopRun(messages.StopRunRequest(**fields(store.run, "4")), timeout=20)
        assert stopped.is_set()


async def test_workers_of_another_process_are_shown_and_scaled(
    redis_url: str, run_name: str, tmp_path: Path
) -> None:
    live, workers = live_run(run_name, tmp_path), FakeWorkers()
    async with elsewhere(redis_url) as admin, going_on(live, redis_url):
        scale = messages.ScaleWorkersRequest(
            kind=messages.WORKER_KIND_ROLLOUT, count=3, **fields(run_name, "a")
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await admin.ScaleWorkers(scale, timeout=20)
        assert "the run does not sample now" in str(caught.value.details())
        live.workers = workers
        scale.request_id = "b"
        await admin.ScaleWorkers(scale, timeout=20)
        assert workers.count == 3
        names: list[str] = []
        async with asyncio.timeout(20):
            while len(names) != 3:  # it says so with its next beat
                asked = messages.ListWorkersRequest(run=run_name)
                names = [each.name for each in (await admin.ListWorkers(asked)).workers]
                await asyncio.sleep(0.1)
        assert names == ["rollout-0", "rollout-1", "rollout-2"]
        said: list[str] = []
        live.staleness = Staleness(0, 10, 30, WantedFile(tmp_path / "wanted.json"), said.append)
        asked = messages.SetStalenessRequest(max_staleness=1, **fields(run_name, "c"))
        await admin.SetStaleness(asked, timeout=20)
        assert live.said().max_staleness == 1
        assert len(said) == 1


async def test_a_pause_waits_for_a_run_that_is_not_there_and_a_stop_does_not(
    redis_url: str, run_name: str, tmp_path: Path
) -> None:
    async with elsewhere(redis_url) as admin:
        async with going_on(live_run(run_name, tmp_path), redis_url):
            pass
        pause = messages.PauseRunRequest(**fields(run_name, "1", "no power"))
        note = (await admin.PauseRun(pause, timeout=20)).note
        assert note == f"run {run_name} is not there: it does so when the same command goes on"
        stop = messages.StopRunRequest(**fields(run_name, "2"))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await admin.StopRun(stop, timeout=20)
        assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        live = live_run(run_name, tmp_path)
        live.own.started.GetCurrentTime()
        async with going_on(live, redis_url), asyncio.timeout(20):
            while not live.hold.wanted:
                await asyncio.sleep(0.05)
        assert live_run(run_name, tmp_path).own.state == messages.RUN_STATE_PAUSING
