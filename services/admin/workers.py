"""The workers of a run from a terminal: `workers`, and `workers scale rollout=3`."""

import sys
from collections.abc import Iterable, Mapping, Sequence

from pairloop.admin.v1 import admin_pb2 as messages
from pairloop.admin.v1.admin_pb2_grpc import AdminServiceStub

KINDS: Mapping[str, messages.WorkerKind] = {
    "rollout": messages.WORKER_KIND_ROLLOUT,
    "pairing": messages.WORKER_KIND_PAIRING,
}
Counts = dict[messages.WorkerKind, int]


def counts(words: Sequence[str]) -> Counts:
    """How many of each kind are asked for: {} of no words. ValueError says what is wrong."""
    if not words:
        return {}
    found: Counts = {}
    for word in words[1:]:
        kind, _, count = word.partition("=")
        if kind not in KINDS or not count.isdecimal() or not 0 < int(count) < 2**32:
            raise ValueError(f"'{word}' is not understood; {_USAGE}")
        found[KINDS[kind]] = int(count)
    if words[0] != "scale" or not found:
        raise ValueError(f"'workers {' '.join(words)}' is not understood; {_USAGE}")
    return found


def look_or_scale(
    stub: AdminServiceStub, asked: Counts, change: Mapping[str, str], timeout_s: float
) -> None:
    """Ask for these counts, if any, and print the workers."""
    workers, notes = None, list[str]()
    for kind, count in asked.items():
        # Each kind is a change of its own.
        own = {**change, "request_id": f"{change['request_id']}.{kind}"}
        request = messages.ScaleWorkersRequest(kind=kind, count=count, **own)
        scaled = stub.ScaleWorkers(request, timeout=timeout_s)
        workers, notes = scaled.workers, [*notes, scaled.note]
    if workers is None:
        workers = stub.ListWorkers(messages.ListWorkersRequest(), timeout=timeout_s).workers
    _show(workers)
    sys.stdout.write("".join(f"{note}\n" for note in notes if note))


def _show(workers: Iterable[messages.Worker]) -> None:
    for worker in workers:
        state = messages.WorkerState.Name(worker.state).removeprefix("WORKER_STATE_")
        holds = f"version {worker.weight_version}" if worker.HasField("weight_version") else ""
        sys.stdout.write(
            f"{worker.name:<12}  {state:<8}  {holds:<12}  replaced {worker.restarts} times\n"
        )


_USAGE = "such as: workers scale rollout=3 pairing=2, each 1 or more"
