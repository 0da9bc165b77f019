"""Hand a version to every engine and believe it only when each has attested.

Every worker loads and checks on its own; one that finds a difference gets the version a second
time, and a second difference ends the run.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from pairloop.data.v1.weights_pb2 import Attestation, TensorManifest, WeightManifest
from services.errors import AttestationError, StallError
from services.memory_plan import WIDTHS
from services.telemetry.record.events import WeightsPublished


class WeightHolder(Protocol):
    """A worker as the broadcaster sees it."""

    @property
    def worker_id(self) -> str:
        """Names the worker in errors."""

    async def load_weights(self, manifest: bytes, weights: Any) -> bytes | None:
        """Load a version and attest; takes and returns serialized messages.

        None when it ended or left meanwhile: nothing is sampled there.
        """


async def broadcast(
    workers: Sequence[WeightHolder],
    manifest: bytes,
    weights: Any,
    timeout_s: float,
    *,
    stage: str,
) -> WeightsPublished:
    """Load one version into every worker at once; returns when all of them hold it, or are gone.

    `weights` is handed on as it is: an object reference, or the arrays. The event names `stage`.
    `timeout_s` is each worker's deadline for one load. Raises AttestationError for a worker whose
    weights still differ after the repair, StallError for one that passes its deadline; what a
    worker raises itself comes through. The other loads are cancelled then.
    """
    started = time.monotonic()
    described = WeightManifest.FromString(manifest)
    tasks = [
        asyncio.ensure_future(_attest(worker, manifest, weights, described.version, timeout_s))
        for worker in workers
    ]
    try:
        attested = [found for found in await asyncio.gather(*tasks) if found]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return WeightsPublished(
        stage=stage,
        version=described.version,
        workers=len(attested),
        bytes=sum(_values(t) * WIDTHS[t.dtype] for t in described.tensors),
        seconds=time.monotonic() - started,
        repaired=sum(repaired for _, repaired in attested),
        max_canary_difference=max((a.max_canary_difference for a, _ in attested), default=0.0),
        changed_values=sum(t.changed_values for t in described.tensors),
        total_values=sum(_values(t) for t in described.tensors),
    )


async def _attest(
    worker: WeightHolder, manifest: bytes, weights: Any, version: int, timeout_s: float
) -> tuple[Attestation, bool] | None:
    async def load() -> Attestation | None:
        found = await worker.load_weights(manifest, weights)
        return None if found is None else Attestation.FromString(found)

    return await attested(load, worker.worker_id, f"weight version {version}", timeout_s)


async def attested(
    load: Callable[[], Awaitable[Attestation | None]],
    worker_id: str,
    what: str,
    timeout_s: float,
    setting: str = "sync.timeout_s",
) -> tuple[Attestation, bool] | None:
    """A clean attestation of `load`, and whether it took a second try; None where it has none.

    Errors as `broadcast`.
    `setting` is where a user finds the deadline.
    """
    for tries in range(2):
        try:
            async with asyncio.timeout(timeout_s):
                attestation = await load()
        except TimeoutError:
            raise StallError(
                f"worker {worker_id} did not attest its weights within {timeout_s:g} s; "
                f"look at its log, or raise {setting}"
            ) from None
        if attestation is None:
            return None
        if not attestation.mismatches:
            return attestation, tries > 0
        mismatches = attestation.mismatches
    first, more = mismatches[0], len(mismatches) - 1
    raise AttestationError(
        f"worker {worker_id} does not hold {what} after a second full sync: {first.tensor}: "
        f"expected {first.expected}, found {first.found}"
        + (f" (and {more} more tensors)" if more else "")
        + "; the same command tries again, and if it ends so again the worker's machine is at fault"
    )


def _values(tensor: TensorManifest) -> int:
    count = 1
    for size in tensor.shape:
        count *= size
    return count
