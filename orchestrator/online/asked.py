"""What the exporter asks of an online run when it is scraped."""

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from pairloop.admin.v1.admin_pb2 import (
    WORKER_STATE_DRAINING,
    WORKER_STATE_STARTING,
    WORKER_STATE_WORKING,
    Worker,
    WorkerKind,
    WorkerState,
)
from services.queues.backlog import BacklogReader
from services.telemetry.metrics.asked import Asked


class Workers(Protocol):
    """Those of a run, as Scaling has them."""

    @property
    def kinds(self) -> Sequence[WorkerKind]:
        """Those that there are."""

    def list(self) -> Sequence[Worker]:
        """Every worker, by kind."""


async def asked(backlog: BacklogReader, there: Workers, credits: int) -> Asked:
    """Queues, credits, Redis and workers of this moment. Raises UnreachableError."""
    found = await backlog.read()
    # Each of them, also where there is none: 0 is told apart from silence.
    states = [WORKER_STATE_STARTING, WORKER_STATE_WORKING, WORKER_STATE_DRAINING]
    workers = Counter((worker.kind, worker.state) for worker in there.list())
    return Asked(
        entries=found.entries,
        credits_in_use=found.credits_in_use,
        credits=credits,
        dead_letters=found.dead_letters,
        workers={
            (
                WorkerKind.Name(kind).removeprefix("WORKER_KIND_").lower(),
                WorkerState.Name(state).removeprefix("WORKER_STATE_").lower(),
            ): workers[kind, state]
            for kind in there.kinds
            for state in states
        },
        memory_bytes=found.memory_bytes,
        max_memory_bytes=found.max_memory_bytes,
    )
