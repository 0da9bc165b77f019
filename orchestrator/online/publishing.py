"""The learner's way out: its weights as a described version in the VersionStore."""

from typing import Any

import ray

from pairloop.data.v1.weights_pb2 import WeightManifest
from services.learner.online.ports import WeightVersion
from services.weights.canary import build_canary
from services.weights.manifest import build_manifest


class StorePublisher:
    """Describes a version and leaves it in the VersionStore.

    Runs in the learner's process, which owns the arrays in the object store.
    """

    def __init__(self, store: Any) -> None:
        self._store = store

    def __call__(self, version: WeightVersion) -> None:
        """Publish; returns when the store holds it."""
        manifest = manifest_of(version).SerializeToString()
        ref = ray.put(dict(version.tensors))
        ray.get(
            self._store.publish.remote(version.version, manifest, [ref], dict(version.metrics)),
            timeout=60.0,
        )


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
