"""What a weight version is, and whether tensors are it. Pure: numpy and a hash, no torch.

Tensors travel as a mapping from Hugging Face parameter names to numpy arrays. numpy has no
bfloat16, so those travel as their bits in uint16, under the dtype name "bfloat16".
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xxhash

from pairloop.data.v1.weights_pb2 import (
    WEIGHT_KIND_DELTA,
    WEIGHT_KIND_FULL,
    Canary,
    TensorManifest,
    TensorMismatch,
    WeightManifest,
)
from services.errors import WeightsError

Array = npt.NDArray[np.generic]
Tensors = Mapping[str, Array]


@dataclass(frozen=True)
class Shared:
    """A snapshot that other processes can read: once in memory, however many read it."""

    tensors: Tensors
    """Read-only; a name's array is gone once a newer snapshot has replaced it."""
    changed: Mapping[str, int]
    """Values whose bits differ from the snapshot shared before; without one, all. Empty where
    nobody counts."""


CARRIERS = {"float32": "float32", "float16": "float16", "bfloat16": "uint16"}
"""numpy dtype that carries each dtype a manifest may name."""


def checksum(array: Array) -> str:
    """xxh3-64 of the array's little-endian bytes in C order, as 16 hex digits."""
    little = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
    return xxhash.xxh3_64_hexdigest(little.reshape(-1).view(np.uint8).data)


def weights_sha256(manifest: WeightManifest) -> str:
    """A version's weights in one name: SHA-256 in hex over its tensors, sorted by name.

    A line a tensor, of name, dtype, shape and checksum, with tabs between them. The tensors are
    not read again. It tells weights apart that went the wrong way; it is no proof against somebody
    who looks for two that agree, as the checksums are not.
    """
    digest = hashlib.sha256()
    for tensor in sorted(manifest.tensors, key=lambda entry: entry.name):
        shape = ",".join(map(str, tensor.shape))
        digest.update(f"{tensor.name}\t{tensor.dtype}\t{shape}\t{tensor.checksum}\n".encode())
    return digest.hexdigest()


def changed_values(previous: Tensors, current: Tensors) -> dict[str, int]:
    """By name, how many values of `current` have other bits than in `previous`.

    A tensor that `previous` does not hold in this shape and dtype counts whole.
    """
    return {name: changed_in(previous.get(name), array) for name, array in current.items()}


def changed_in(old: Array | None, new: Array) -> int:
    """How many values of `new` have other bits than in `old`; as in `changed_values`."""
    if old is None or old.shape != new.shape or old.dtype != new.dtype:
        return int(new.size)
    return int(np.count_nonzero(_bits(old) != _bits(new)))


def build_manifest(
    run: str,
    version: int,
    base_version: int,
    tensors: Tensors,
    dtypes: Mapping[str, str],
    canary: Canary,
    changed: Mapping[str, int] | None = None,
) -> WeightManifest:
    """The manifest of a full version.

    `dtypes` maps every name to "float32", "float16" or "bfloat16"; `changed` is what
    `changed_values` counted, and without it every value counts as changed. Raises WeightsError
    when a tensor is not carried as its dtype asks.
    """
    counts = {name: int(array.size) for name, array in tensors.items()}
    counts.update(changed or {})
    entries = []
    for name in sorted(tensors):
        array, dtype = tensors[name], dtypes[name]
        if CARRIERS.get(dtype) != array.dtype.name:
            raise WeightsError(
                f"{name}: {dtype} cannot travel as numpy {array.dtype.name}; "
                f"use one of {', '.join(f'{d} as {c}' for d, c in CARRIERS.items())}"
            )
        entries.append(
            TensorManifest(
                name=name,
                dtype=dtype,
                shape=array.shape,
                changed_values=counts[name],
                checksum=checksum(array),
            )
        )
    return WeightManifest(
        run=run,
        version=version,
        base_version=base_version,
        kind=WEIGHT_KIND_FULL,
        tensors=entries,
        canary=canary,
    )


def verify(manifest: WeightManifest, tensors: Tensors) -> list[TensorMismatch]:
    """Where the tensors are not what the manifest says; empty when they are."""
    found = [
        _compare(expected, tensors.get(expected.name))
        for expected in sorted(manifest.tensors, key=lambda entry: entry.name)
    ]
    named = {entry.name for entry in manifest.tensors}
    found += [
        TensorMismatch(tensor=name, expected="not in the manifest", found="present")
        for name in sorted(set(tensors) - named)
    ]
    return [mismatch for mismatch in found if mismatch is not None]


def require_base(manifest: WeightManifest, held: int) -> None:
    """Raise WeightsError when the manifest is a delta over a version that is not held."""
    if manifest.kind == WEIGHT_KIND_DELTA and manifest.base_version != held:
        raise WeightsError(
            f"version {manifest.version} is a delta over version {manifest.base_version}, "
            f"version {held} is held; send it in full"
        )


def require_names(manifest: WeightManifest, names: set[str]) -> None:
    """Raise WeightsError unless a full manifest names exactly the model's parameters."""
    named = {entry.name for entry in manifest.tensors}
    if named != names:
        missing, extra = sorted(names - named), sorted(named - names)
        raise WeightsError(
            f"version {manifest.version} does not fit the engine's model: "
            f"missing {_some(missing)}; unknown {_some(extra)}"
        )


def _compare(expected: TensorManifest, array: Array | None) -> TensorMismatch | None:
    if array is None:
        return TensorMismatch(tensor=expected.name, expected="present", found="missing")
    carrier = CARRIERS.get(expected.dtype, expected.dtype)
    pairs = (
        (f"shape {list(expected.shape)}", f"shape {list(array.shape)}"),
        (f"dtype {carrier}", f"dtype {array.dtype.name}"),
    )
    for wanted, is_there in pairs:
        if wanted != is_there:
            return TensorMismatch(tensor=expected.name, expected=wanted, found=is_there)
    if (digest := checksum(array)) != expected.checksum:
        return TensorMismatch(tensor=expected.name, expected=expected.checksum, found=digest)
    return None


def _bits(array: Array) -> Array:
    """The same values as unsigned integers: -0.0 is not 0.0, and a NaN equals itself."""
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")


def _some(names: list[str], at_most: int = 3) -> str:
    more = f" and {len(names) - at_most} more" if len(names) > at_most else ""
    return (", ".join(names[:at_most]) or "none") + more
