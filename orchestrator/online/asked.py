"""What the exporter asks of an online run when it is scraped."""

from collections import Counter

from orchestrator.online.scaling import Scaling
from pairloop.admin.v1.admin_pb2 import WORKER_STATE_UNSPECIFIED, WorkerKind, WorkerState
from services.queues.backlog import BacklogReader
from services.telemetry.metrics.asked import Asked


async def asked(backlog: BacklogReader, scaling: Scaling, credits: int) -> Asked:
    """Queues, credits, Redis and workers of this moment. Raises UnreachableError."""
    found = await backlog.read()
    states = [state for state in WorkerState.values() if state != WORKER_STATE_UNSPECIFIED]
    workers = Counter((worker.kind, worker.state) for worker in scaling.list())
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
            for kind in scaling.kinds
            for state in states
        },
        memory_bytes=found.memory_bytes,
        max_memory_bytes=found.max_memory_bytes,
    )
