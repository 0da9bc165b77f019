import asyncio
from typing import Any

import numpy as np
import pytest

from pairloop.data.v1.weights_pb2 import Attestation, Canary, WeightManifest
from services.errors import AttestationError, StallError
from services.weights.broadcaster import broadcast
from services.weights.manifest import build_manifest
from services.weights.version_store import VersionStore
from tests.fake_engine import FakeEngine


class Holder:
    """A worker around a fake engine, without Ray."""

    def __init__(self, engine: FakeEngine, delay_s: float = 0.0) -> None:
        self.engine = engine
        self.worker_id = engine.worker_id
        self._delay_s = delay_s
        self.calls = 0

    async def load_weights(self, manifest: bytes, weights: Any) -> bytes:
        self.calls += 1
        await asyncio.sleep(self._delay_s)
        attestation: Attestation = self.engine.load_weights(
            WeightManifest.FromString(manifest), weights
        )
        return attestation.SerializeToString()


TENSORS: dict[str, np.ndarray] = {"w": np.arange(4, dtype=np.float32), "b": np.zeros(2, np.uint16)}


def version(number: int) -> bytes:
    dtypes, changed = {"w": "float32", "b": "bfloat16"}, {"w": 3, "b": 0}
    described = build_manifest("run", number, number - 1, TENSORS, dtypes, Canary(), changed)
    return described.SerializeToString()


async def test_every_worker_loads_and_the_summary_adds_up() -> None:
    workers = [Holder(FakeEngine(worker_id=f"w{i}")) for i in range(3)]
    published = await broadcast(workers, version(1), TENSORS, timeout_s=5.0, stage="online")
    assert [worker.engine.version for worker in workers] == [1, 1, 1]
    assert (published.version, published.workers, published.repaired) == (1, 3, 0)
    assert (published.bytes, published.changed_values, published.total_values) == (20, 3, 6)


async def test_one_mismatch_is_repaired_by_a_second_load() -> None:
    good, bad = Holder(FakeEngine()), Holder(FakeEngine(worker_id="w1", bad_loads=1))
    published = await broadcast([good, bad], version(1), TENSORS, timeout_s=5.0, stage="online")
    assert published.repaired == 1
    assert (good.calls, bad.calls) == (1, 2)
    assert bad.engine.version == 1


async def test_a_second_mismatch_names_worker_and_tensor() -> None:
    worker = Holder(FakeEngine(worker_id="w7"))
    damaged = {**TENSORS, "w": np.ones(4, np.float32)}
    with pytest.raises(AttestationError) as caught:
        await broadcast([worker], version(1), damaged, timeout_s=5.0, stage="online")
    assert "worker w7 does not hold weight version 1" in str(caught.value)
    assert ": w: expected" in str(caught.value)
    assert worker.calls == 2
    assert worker.engine.version == 0


async def test_a_slow_worker_is_named_and_the_others_do_not_linger() -> None:
    workers = [Holder(FakeEngine()), Holder(FakeEngine(worker_id="slow"), delay_s=60.0)]
    before = asyncio.all_tasks()
    with pytest.raises(StallError, match="worker slow did not attest its weights within"):
        await broadcast(workers, version(1), TENSORS, timeout_s=0.05, stage="online")
    assert asyncio.all_tasks() == before


async def test_the_store_gives_the_newest_version_to_who_waits_for_one_before() -> None:
    store = VersionStore()
    waiter = asyncio.create_task(store.wait(3, timeout_s=5.0))
    for number in (1, 2, 3):
        await store.publish(number, f"m{number}".encode(), {"w": number}, {"loss": float(number)})
    assert await waiter == (3, b"m3", {"w": 3}, {"loss": 3.0})
    with pytest.raises(StallError, match=r"\(held: 3\)"):
        await store.wait(4, timeout_s=0.01)
    assert (await store.wait(0, timeout_s=5.0)).version == 3
    await store.publish(3, b"again", {}, {})
    assert await store.wait(2, timeout_s=5.0) == (3, b"again", {}, {})


async def test_a_withdrawn_version_is_waited_for_as_if_it_had_never_been() -> None:
    store = VersionStore()
    await store.publish(3, b"m3", {"w": 3}, {})
    await store.withdraw()
    with pytest.raises(StallError, match=r"version 3 was not .* \(held: none\)"):
        await store.wait(3, timeout_s=0.01)
    await store.publish(4, b"m4", {"w": 4}, {})
    assert await store.wait(3, timeout_s=5.0) == (4, b"m4", {"w": 4}, {})


async def test_a_version_that_never_comes_is_a_stall() -> None:
    store = VersionStore()
    await store.publish(1, b"", {}, {})
    with pytest.raises(StallError, match=r"version 2 was not .* 0\.01 s \(held: 1\); see"):
        await store.wait(2, timeout_s=0.01)
