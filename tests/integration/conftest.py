"""What integration tests share: one real Redis server, and a run name nobody else uses."""

import os
import uuid
from collections.abc import Iterator

import pytest

from services.queues.embedded import EmbeddedRedis


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if url := os.environ.get("PAIRLOOP_TEST_REDIS"):
        yield url  # kept by `make mutants` for all its processes
        return
    server = EmbeddedRedis.start(tmp_path_factory.mktemp("redis"), "everysec")
    yield server.url
    server.stop()


@pytest.fixture
def run_name() -> str:
    return f"test-{uuid.uuid4().hex[:12]}"
