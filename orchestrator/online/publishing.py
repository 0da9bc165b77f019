"""The learner's way out: its weights as a checked version on the board."""

from typing import Any, Literal

import ray
import torch

from services.learner.online.ports import WeightVersion
from services.weights.canary import build_canary
from services.weights.manifest import build_manifest
from services.weights.snapshot import to_array


class StorePublisher:
    """Casts to the engines' dtype, describes, and leaves the version on the VersionStore.

    Runs in the learner's process, which owns the arrays in the object store.
    """

    def __init__(self, board: Any, dtype: Literal["float32", "bfloat16", "float16"]) -> None:
        self._board = board
        self._dtype = dtype

    def __call__(self, version: WeightVersion) -> None:
        """Publish; returns when the board holds it."""
        kind = getattr(torch, self._dtype)
        tensors = {
            name: to_array(torch.from_numpy(array).to(kind))
            for name, array in version.tensors.items()
        }
        manifest = build_manifest(
            version.run,
            version.version,
            version.base_version,
            tensors,
            dict.fromkeys(tensors, self._dtype),
            build_canary(
                list(version.canary_tokens),
                list(version.canary_logprobs),
                version.canary_tolerance,
            ),
            version.changed,
        )
        ref = ray.put(tensors)
        ray.get(
            self._board.publish.remote(
                version.version, manifest.SerializeToString(), [ref], dict(version.metrics)
            ),
            timeout=60.0,
        )
