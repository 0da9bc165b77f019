"""A part that dies while a run starts is started again, and the run stays its orchestrator's."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from orchestrator.jobs.online_dpo import OnlineDPO
from orchestrator.online import run as online_run
from orchestrator.online.services import Services
from orchestrator.stages.context import RunContext, StageContext
from services.errors import ResourceError, StateError
from services.queues.queues import RunQueues
from services.queues.run_lease import RunLease
from services.rollout.actor import RolloutHandle
from tests.integration.test_online_services import DEATH, World, budget_of, started


@pytest.mark.parametrize("part", ["engines", "reward"])
async def test_what_dies_while_it_starts_is_started_again(
    part: str, redis_url: str, run_name: str, tmp_path: Path
) -> None:
    class OnceDead(World):
        def start(self, name: str) -> None:
            self.broken = {part: DEATH} if f"{part} starts" not in self.history else {}
            super().start(name)

    world, said = OnceDead(), list[str]()
    async with started(world, redis_url, run_name, tmp_path, budget_of(1, said)):
        assert world.history.count(f"{part} starts") == 2
    assert [text.rpartition("; ")[2] for text in said] == ["it is replaced"]


async def test_an_engine_that_dies_before_all_is_up_is_started_again(
    redis_url: str, run_name: str, tmp_path: Path
) -> None:
    class Dying(World):
        async def start_engines(self, *arguments: Any) -> list[RolloutHandle]:
            engines = await super().start_engines(*arguments)
            if len(self.engines) == 1:
                self.engines[0].alive.die(DEATH)
            return engines

    world = Dying()
    async with started(world, redis_url, run_name, tmp_path, budget_of(1)) as services:
        assert [slot.engine for slot in services.engines.slots] == [world.engines[1]]
    assert world.history.count("rollout-0 ends") == 2


async def running(
    folder: Path,
    run_name: str,
    start: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    **queues: Any,
) -> None:
    """`run_online` of a job whose services start so."""
    shared = RunContext(run_name, folder, print, sink=None)
    context = StageContext(shared, "online", 0, folder, folder, "trunk")
    job = OnlineDPO.model_validate(
        {
            "job": "online_dpo",
            "policy": "p",
            "prompts": {"path": "prompts.jsonl"},
            "reward": {"parts": [{"kind": "checker"}]},
            "episodes": {"count": 1, "prompts": 4},
            "queues": queues,
        }
    )
    monkeypatch.setattr(online_run, "start_services", start)
    await online_run.run_online(job, context)


async def test_a_run_is_held_while_its_services_start(
    redis_url: str, run_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading a model may take longer than the lease lasts."""

    async def start(job: OnlineDPO, context: StageContext, name: str, *_: Any) -> Services:
        await asyncio.sleep(3.0)
        with pytest.raises(StateError, match="is held by"):
            await RunLease.take(redis_url, name, 1.0, 5.0)
        raise ResourceError("it was held")

    with pytest.raises(ResourceError, match="it was held"):
        await running(tmp_path, run_name, start, monkeypatch, url=redis_url, lease_s=1.0)


async def test_an_embedded_redis_that_dies_while_services_start_is_started_again(
    run_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)

    async def start(
        job: OnlineDPO, context: StageContext, name: str, url: str, *_: Any
    ) -> Services:
        async with Redis.from_url(url) as redis:
            os.kill((await redis.info("server"))["process_id"], signal.SIGKILL)
        queues = await RunQueues.open(url, name, job.queues, joining=True)
        assert await queues.credits_in_use() == 0
        await queues.close()
        raise ResourceError("it was there again")

    with pytest.raises(ResourceError, match="it was there again"):
        await running(tmp_path, run_name, start, monkeypatch)
