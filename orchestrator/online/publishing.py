"""The learner's way out: its weights as a described version in the VersionStore."""

import time
from collections.abc import Iterable
from typing import Any

import ray

from pairloop.data.v1.weights_pb2 import WeightManifest
from services.learner.online.ports import WeightVersion
from services.weights.canary import build_canary
from services.weights.manifest import Array, Shared, build_manifest, changed_in, weights_sha256

_ANSWER_S = 300.0
"""A store that died is started again, one that hangs is found to do so first."""
_LOOK_S = 2.0


class StorePublisher:
    """Describes a version and leaves it in the VersionStore.

    Runs in the learner's process, which owns the arrays in the object store. There is one
    snapshot at a time: `share` replaces it tensor by tensor.
    """

    def __init__(self, store: Any) -> None:
        self._store = store
        self._refs: dict[str, Any] = {}
        self._arrays: dict[str, Array] = {}
        """What the references stand for, read in place."""
        self._offer: tuple[int, bytes, dict[str, float]] | None = None
        self._looked = 0.0

    def share(self, tensors: Iterable[tuple[str, Array]]) -> Shared:
        """Put a snapshot into shared memory, each tensor in the place of the one before.

        `tensors` may make one array at a time. What was shared before is published no more.
        """
        self._offer = None
        ray.get(self._store.withdraw.remote(), timeout=_ANSWER_S)
        changed: dict[str, int] = {}
        gone = set(self._refs)
        for name, array in tensors:
            changed[name] = changed_in(self._arrays.pop(name, None), array)
            self._refs.pop(name, None)  # before the next is put: the two are never there at once
            self._refs[name] = ray.put(array)
            self._arrays[name] = ray.get(self._refs[name])
            gone.discard(name)
        for name in gone:
            del self._arrays[name], self._refs[name]
        return Shared(self._arrays, changed)

    def __call__(self, version: WeightVersion) -> str:
        """Publish what was shared last, `version.tensors`; returns when the store holds it."""
        manifest = manifest_of(version)
        self._offer = (version.version, manifest.SerializeToString(), dict(version.metrics))
        self._publish()
        return weights_sha256(manifest)

    def look(self) -> None:
        """Publish once more where the store's process was replaced: the new one holds nothing."""
        if self._offer is None or time.monotonic() - self._looked < _LOOK_S:
            return
        self._looked = time.monotonic()
        if ray.get(self._store.number.remote(), timeout=_ANSWER_S) != self._offer[0]:
            self._publish()

    def _publish(self) -> None:
        if self._offer is not None:
            version, manifest, metrics = self._offer
            published = self._store.publish.remote(version, manifest, self._refs, metrics)
            ray.get(published, timeout=_ANSWER_S)


def manifest_of(version: WeightVersion) -> WeightManifest:
    """The manifest that goes with the version's tensors."""
    return build_manifest(
        version.run,
        version.version,
        version.base_version,
        version.tensors,
        dict.fromkeys(version.tensors, version.dtype),
        build_canary(
            list(version.canary_tokens), list(version.canary_logprobs), version.canary_tolerance
        ),
        version.changed,
    )
