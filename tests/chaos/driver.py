"""The orchestrator's command, whose engines have no model and answer at once.

Everything else is what a user has: Ray, Redis, Ray Serve, gRPC, the learner on a tiny policy. The
engines are real processes around tests/fake_engine.py, whose answers hang on prompt, seed and
weight version alone, so that a run gives the same weights whatever happens to it.
"""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from pairloop.data.v1.rollout_pb2 import Rollout
from services.queues.address import RunRedis, redis_of_run
from services.rollout.actor import RolloutHandle, start_workers
from services.rollout.engine import Engine
from services.rollout.settings import EngineSettings
from tests.fake_engine import FakeEngine

NETWORK = "PAIRLOOP_CHAOS_NETWORK"
"""Environment variable: the port of tests/chaos/network.py; 0: no network is in between."""
STEP_S = 0.02
"""A step of an engine; `STEPS` of them answer what runs."""
STEPS = 8


class TimedEngine(FakeEngine):
    """Takes a while for its answers."""

    def step(self) -> list[Rollout]:
        """As FakeEngine."""
        time.sleep(STEP_S)
        return super().step()


def engine_of(vocabulary: int, worker_id: str) -> Engine:
    """In the engine's own process."""
    return TimedEngine(
        worker_id=worker_id,
        steps=STEPS,
        max_num_seqs=16,
        vocabulary=vocabulary,
        skill_per_version=0.0,  # else every answer is right in the end, and there are no pairs
    )


async def start_engines(
    settings: EngineSettings, model: str, seed: int, names: Sequence[str]
) -> list[RolloutHandle]:
    """As services.rollout.actor.create_workers."""
    return await start_workers(settings, partial(engine_of, 300), names, {})


@contextmanager
def redis_behind(port: int, *arguments: Any) -> Iterator[RunRedis]:
    """As services.queues.address.redis_of_run; who uses it has this network in between."""
    with redis_of_run(*arguments) as redis:
        own = urlsplit(redis.url).port
        yield replace(redis, url=redis.url.replace(f"127.0.0.1:{own}", f"127.0.0.1:{port}"))


def main(arguments: list[str]) -> int:
    """As orchestrator/run.py."""
    import orchestrator.online.run
    import orchestrator.run
    from orchestrator.stages import engines

    engines.EnginePool = partial(engines.EnginePool, start=start_engines)  # type: ignore
    if network := int(os.environ.get(NETWORK, "0")):
        orchestrator.online.run.redis_of_run = partial(redis_behind, network)  # type: ignore
    return orchestrator.run.main(arguments)


if __name__ == "__main__":
    from tests.chaos import driver  # by its name, so that Ray's workers import it

    sys.exit(driver.main(sys.argv[1:]))
