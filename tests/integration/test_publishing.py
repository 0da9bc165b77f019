"""A snapshot in a real object store: there once, replaced tensor by tensor, read by who waits."""

import gc
import weakref
from collections.abc import Iterator

import numpy as np
import pytest
import ray

from orchestrator.online.publishing import StorePublisher
from pairloop.data.v1.weights_pb2 import WeightManifest
from services.errors import StallError
from services.learner.online.ports import WeightVersion
from services.weights.manifest import Array, Shared, verify, weights_sha256
from services.weights.version_store import VersionStoreHandle, start_version_store

LARGE = 1 << 18
"""Values: above what Ray would keep in a process of its own."""


@pytest.fixture
def store(cluster: None) -> Iterator[VersionStoreHandle]:
    store = start_version_store()
    yield store
    store.kill()


def version(number: int, shared: Shared) -> WeightVersion:
    return WeightVersion(
        run="run",
        version=number,
        base_version=max(0, number - 1),
        dtype="float32",
        tensors=shared.tensors,
        changed=shared.changed,
        canary_tokens=[1, 2],
        canary_logprobs=[-1.0],
        canary_tolerance=0.1,
        metrics={"loss": float(number)},
    )


def snapshot(first: float, second: float) -> dict[str, Array]:
    return {
        "a": np.full(LARGE, first, np.float32),
        "b": np.full(LARGE, second, np.float32),
    }


async def test_one_snapshot_at_a_time_and_what_has_changed(store: VersionStoreHandle) -> None:
    publish = StorePublisher(store.actor)
    first = publish.share(iter(snapshot(0.0, 1.0).items()))
    assert first.changed == {"a": LARGE, "b": LARGE}
    digest = publish(version(0, first))
    held = await store.wait(0, timeout_s=30.0)
    assert digest == weights_sha256(WeightManifest.FromString(held.manifest))
    assert list(held.refs) == ["a", "b"]
    del held
    before = [weakref.ref(array) for array in first.tensors.values()]
    alive: list[int] = []

    def second() -> Iterator[tuple[str, Array]]:
        for name, array in snapshot(0.0, 2.0).items():
            gc.collect()
            alive.append(sum(ref() is not None for ref in before))
            yield name, array

    shared = publish.share(second())
    assert shared.changed == {"a": 0, "b": LARGE}
    # As "b" is made, the old "a" has gone.
    assert alive == [2, 1]
    with pytest.raises(StallError, match="held: none"):
        await store.wait(0, timeout_s=0.01)
    publish(version(1, shared))
    held = await store.wait(1, timeout_s=30.0)
    read = dict(zip(held.refs, ray.get(list(held.refs.values())), strict=True))
    described = WeightManifest.FromString(held.manifest)
    assert verify(described, read) == []
    assert (held.metrics, described.version) == ({"loss": 1.0}, 1)
    assert read["b"][0] == 2.0


async def test_a_tensor_that_is_no_longer_there_goes(store: VersionStoreHandle) -> None:
    publish = StorePublisher(store.actor)
    publish.share(snapshot(0.0, 1.0).items())
    shared = publish.share({"a": np.zeros(LARGE, np.float32)}.items())
    assert list(shared.tensors) == ["a"]
    assert shared.changed == {"a": 0}
