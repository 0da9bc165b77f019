"""What integration tests share: one real Redis server and others at will, a run name nobody else
uses, and an admin API on a run of two episodes and one engine.
"""

import os
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from orchestrator.episodes import EpisodeStore
from pairloop.admin.v1 import admin_pb2 as messages
from services.admin.server import AdminServer
from services.admin.settings import AdminSettings
from services.errors import StateError
from services.queues.embedded import EmbeddedRedis
from tests.integration.redis_servers import Servers


class FakeWorkers:
    """Counts alone, of rollout workers."""

    def __init__(self) -> None:
        self.count = 1
        self.changes: list[messages.Change] = []

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


@pytest.fixture
async def server(
    store: EpisodeStore, workers: FakeWorkers
) -> AsyncIterator[tuple[AdminServer, str]]:
    server = AdminServer()
    address = await server.start(AdminSettings(port=0), store, workers)
    yield server, address
    await server.stop()
