"""What integration tests share: one real Redis server and others at will, a run name nobody else
uses, and an admin API on a run of two episodes and one engine.
"""

import asyncio
import contextlib
import os
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.control.hold import RunHold
from orchestrator.control.live import LiveRun
from orchestrator.control.registration import own_run
from orchestrator.control.runs import RedisRuns
from orchestrator.episodes import EpisodeStore
from pairloop.admin.v1 import admin_pb2 as messages
from services.admin.ports import Runs
from services.admin.server import AdminServer
from services.admin.settings import AdminSettings
from services.errors import StateError, UnreachableError
from services.queues.embedded import EmbeddedRedis
from tests.integration.redis_servers import Servers


class FakeWorkers:
    """Counts alone, of rollout workers."""

    def __init__(self) -> None:
        self.count = 1
        self.changes: list[messages.Change] = []

    @property
    def kinds(self) -> tuple[messages.WorkerKind, ...]:
        return (messages.WORKER_KIND_ROLLOUT,)

    def list(self) -> list[messages.Worker]:
        return [
            messages.Worker(
                name=f"rollout-{number}",
                kind=messages.WORKER_KIND_ROLLOUT,
                state=messages.WORKER_STATE_WORKING,
                weight_version=5,
            )
            for number in range(self.count)
        ]

    def drain(self, name: str, change: messages.Change) -> None:
        if name != "rollout-0":
            raise StateError(f"there is no worker {name} that could leave; there are rollout-0")
        self.changes.append(change)

    def scale(self, kind: messages.WorkerKind, count: int, change: messages.Change) -> str:
        if kind != messages.WORKER_KIND_ROLLOUT:
            raise StateError("no pairing worker is up yet; ask again")
        self.count = count
        self.changes.append(change)
        return "they wait for nodes" if count > 4 else ""


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if url := os.environ.get("PAIRLOOP_TEST_REDIS"):
        yield url  # kept by `make mutants` for all its processes
        return
    server = EmbeddedRedis.start(tmp_path_factory.mktemp("redis"), "everysec")
    yield server.url
    server.stop()


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    servers = Servers(tmp_path / "servers")
    yield servers
    servers.end()


@pytest.fixture
def run_name() -> str:
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
async def store(redis_url: str, run_name: str) -> AsyncIterator[EpisodeStore]:
    store = await EpisodeStore.open(redis_url, run_name, 5.0)
    await store.create(2, 4)
    yield store
    await store.close()


@pytest.fixture
def workers() -> FakeWorkers:
    return FakeWorkers()


FREE = AdminSettings(port=0)


@contextlib.asynccontextmanager
async def admin_of(
    url: str, run: str, settings: AdminSettings = FREE, workers: Any = None
) -> AsyncIterator[tuple[AdminServer, str]]:
    """The admin API in the process of a run, with its address."""
    with tempfile.TemporaryDirectory() as folder:
        live = live_run(run, Path(folder))
        live.workers = workers or FakeWorkers()
        runs = await RedisRuns.open(url, 5.0, live)
        try:
            async with serving(runs, settings) as server:
                yield server
        finally:
            await runs.close()


def live_run(name: str, folder: Path) -> LiveRun:
    """A run of this process, with episodes of its name."""
    own = own_run(name, "online_dpo", folder)
    own.id = own.episodes = name
    return LiveRun(own, RunHold(folder, own))


@contextlib.asynccontextmanager
async def serving(
    runs: Runs, settings: AdminSettings = FREE
) -> AsyncIterator[tuple[AdminServer, str]]:
    """The admin API of some runs, with its address."""
    server = AdminServer()
    try:
        yield server, await server.start(settings, runs)
    finally:
        await server.stop(grace_s=0.5)


class SilentRuns(RedisRuns):
    """Their Redis does not answer: each question takes so long, then fails."""

    seconds = 0.0

    async def find(self, run: str) -> messages.Run:
        await asyncio.sleep(self.seconds)
        raise UnreachableError("Redis at redis://x:1 does not answer")


@pytest.fixture
async def server(
    redis_url: str, store: EpisodeStore, workers: FakeWorkers
) -> AsyncIterator[tuple[AdminServer, str]]:
    async with admin_of(redis_url, store.run, workers=workers) as server:
        yield server
