import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pairloop.data.v1.weights_pb2 import (
    WEIGHT_KIND_DELTA,
    WEIGHT_KIND_FULL,
    Canary,
    WeightManifest,
)
from services.errors import WeightsError
from services.weights.canary import (
    build_canary,
    canary_tokens,
    compare,
    default_tolerance,
    difference,
)
from services.weights.manifest import (
    build_manifest,
    changed_values,
    checksum,
    require_base,
    require_names,
    verify,
    weights_sha256,
)

CANARY_320 = [302, 239, 9, 128]
"""The first tokens: two machines must draw the same ones."""


def tensors() -> dict[str, np.ndarray]:
    return {
        "embed": np.arange(12, dtype=np.float32).reshape(3, 4),
        "norm": np.ones(4, dtype=np.uint16),
    }


def manifest() -> WeightManifest:
    dtypes = {"embed": "float32", "norm": "bfloat16"}
    return build_manifest("run", 3, 2, tensors(), dtypes, Canary(tolerance=0.5))


def test_a_manifest_verifies_its_own_tensors() -> None:
    described = manifest()
    assert verify(described, tensors()) == []
    assert [(t.name, t.dtype, list(t.shape), t.changed_values) for t in described.tensors] == [
        ("embed", "float32", [3, 4], 12),
        ("norm", "bfloat16", [4], 4),
    ]
    assert (described.run, described.version, described.base_version) == ("run", 3, 2)
    assert (described.kind, described.canary) == (WEIGHT_KIND_FULL, Canary(tolerance=0.5))


def test_checksum_is_of_the_little_endian_bytes() -> None:
    # xxh3-64 of b"" and of 00 00 80 3f, from the reference implementation.
    assert checksum(np.zeros((0, 3), np.float32)) == "2d06800538d394c2"
    one = np.array([1.0], np.float32)
    assert checksum(one) == checksum(one.astype(">f4"))
    assert checksum(one) != checksum(-one)
    square = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert checksum(square.T) == checksum(np.ascontiguousarray(square.T)) != checksum(square)


@pytest.mark.parametrize(
    ("name", "value", "expected", "found"),
    [
        ("embed", None, "present", "missing"),
        ("embed", np.zeros((4, 3), np.float32), "shape [3, 4]", "shape [4, 3]"),
        ("embed", np.zeros((3, 4), np.float16), "dtype float32", "dtype float16"),
        ("norm", np.ones(4, np.float32), "dtype uint16", "dtype float32"),
        ("extra", np.ones(4, np.float32), "not in the manifest", "present"),
    ],
)
def test_verify_names_what_differs(
    name: str, value: np.ndarray | None, expected: str, found: str
) -> None:
    held = tensors()
    held.pop(name, None)
    if value is not None:
        held[name] = value
    (mismatch,) = verify(manifest(), held)
    assert (mismatch.tensor, mismatch.expected, mismatch.found) == (name, expected, found)


def test_mismatches_come_by_name_and_what_is_not_named_last() -> None:
    shuffled = manifest()
    shuffled.tensors.reverse()
    wrong = {name: np.zeros(4, np.uint16) for name in ("z", "embed", "b")}
    found = [(mismatch.tensor, mismatch.found) for mismatch in verify(shuffled, wrong)]
    assert found == [
        ("embed", "shape [4]"), ("norm", "missing"), ("b", "present"), ("z", "present"),
    ]  # fmt: skip


@given(st.integers(0, 95))
def test_one_flipped_bit_is_found(bit: int) -> None:
    held = tensors()
    raw = held["embed"].view(np.uint8).reshape(-1)
    raw[bit // 8] ^= 1 << (bit % 8)
    (mismatch,) = verify(manifest(), held)
    assert mismatch.tensor == "embed"
    assert mismatch.expected == checksum(tensors()["embed"])
    assert mismatch.found == checksum(held["embed"])


def test_changed_values_counts_bits_not_numbers() -> None:
    before: dict[str, np.ndarray] = {
        "a": np.array([0.0, np.nan, 1.0], np.float32),
        "b": np.zeros(2, np.float32),
    }
    after: dict[str, np.ndarray] = {
        "a": np.array([-0.0, np.nan, 1.0], np.float32),
        "b": np.zeros(2, np.float32),
        "c": np.zeros((2, 2), np.uint16),
    }
    counts = changed_values(before, after)
    assert counts == {"a": 1, "b": 0, "c": 4}
    dtypes = {"a": "float32", "b": "float32", "c": "bfloat16"}
    described = build_manifest("run", 1, 0, after, dtypes, Canary(), counts)
    assert {t.name: t.changed_values for t in described.tensors} == counts


def test_a_tensor_of_another_shape_or_dtype_counts_whole() -> None:
    before: dict[str, np.ndarray] = {"a": np.zeros(2, np.float32), "b": np.zeros(2, np.float32)}
    after: dict[str, np.ndarray] = {"a": np.zeros((2, 2), np.float32), "b": np.zeros(2, np.uint32)}
    assert changed_values(before, after) == {"a": 4, "b": 2}


def test_a_dtype_must_be_carried_by_its_own_numpy_type() -> None:
    with pytest.raises(WeightsError, match="embed: bfloat16 cannot travel as numpy float32"):
        build_manifest("run", 1, 0, tensors(), {"embed": "bfloat16", "norm": "bfloat16"}, Canary())


def test_a_delta_needs_its_base_and_a_full_version_does_not() -> None:
    full, delta = manifest(), manifest()
    delta.kind = WEIGHT_KIND_DELTA
    require_base(full, held=0)
    require_base(delta, held=2)
    with pytest.raises(WeightsError, match="delta over version 2, version 0 is held"):
        require_base(delta, held=0)


def test_names_must_be_the_models() -> None:
    require_names(manifest(), {"embed", "norm"})
    with pytest.raises(WeightsError, match="missing head; unknown norm"):
        require_names(manifest(), {"embed", "head"})
    with pytest.raises(WeightsError, match="missing none; unknown embed, norm"):
        require_names(manifest(), set())
    with pytest.raises(WeightsError, match="missing a, b, c; unknown none"):
        require_names(manifest(), {"embed", "norm", *"abc"})
    with pytest.raises(WeightsError, match="missing a, b, c and 2 more; unknown none"):
        require_names(manifest(), {"embed", "norm", *"abcde"})


def test_a_version_has_one_digest_whatever_it_is_called() -> None:
    described = manifest()
    digest = hashlib.sha256(
        "".join(
            f"{t.name}\t{t.dtype}\t{','.join(map(str, t.shape))}\t{t.checksum}\n"
            for t in (described.tensors[0], described.tensors[1])
        ).encode()
    ).hexdigest()
    assert [t.name for t in described.tensors] == ["embed", "norm"]
    assert weights_sha256(described) == digest
    described.run, described.version = "another", 77
    described.tensors.reverse()
    described.tensors[0].changed_values = 1
    assert weights_sha256(described) == digest
    for name, value in (("name", "x"), ("dtype", "float16"), ("checksum", "ff")):
        other = manifest()
        setattr(other.tensors[1], name, value)
        assert weights_sha256(other) != digest
    other = manifest()
    other.tensors[0].shape[:] = [4, 3]
    assert weights_sha256(other) != digest


def test_canary_tokens_are_fixed() -> None:
    tokens = canary_tokens(320)
    assert len(tokens) == 48
    assert all(0 <= token < 320 for token in tokens)
    assert tokens[:4] == CANARY_320
    assert canary_tokens(320, seed=1)[:4] != CANARY_320
    assert canary_tokens(320, length=3) == CANARY_320[:3]


def test_canary_within_and_beyond_the_tolerance() -> None:
    expected = [-1.0, -2.0]
    assert compare(expected, [-1.0, -2.0004], 5e-4) is None
    assert compare(expected, [-1.0, -2.5], 0.5) is None
    mismatch = compare(expected, [-1.0, -2.5], 5e-4)
    assert mismatch is not None
    assert (mismatch.tensor, mismatch.found) == ("canary", "0.5 nats away")
    assert mismatch.expected == "within 0.0005 nats of the learner"
    assert compare(expected, [-1.0], 5e-4) is not None
    assert difference(expected, [-1.0, float("nan")]) == float("inf")
    assert difference(expected, [-1.5, -2.25, -9.0]) == 0.5
    assert difference([], []) == 0.0


def test_a_canary_and_its_tolerance() -> None:
    assert (default_tolerance("float32"), default_tolerance("bfloat16")) == (5e-4, 0.1)
    canary = build_canary([1, 2, 3], [-1.0, -2.0], 0.5)
    assert (list(canary.token_ids), list(canary.logprobs)) == ([1, 2, 3], [-1.0, -2.0])
    assert canary.tolerance == 0.5
