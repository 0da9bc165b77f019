"""What a 16-bit engine is sent, and what is said of it: the rounded weights, not the learner's."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from orchestrator.online.publishing import manifest_of
from services.learner.jobs.settings import OnlineDPOSettings, OnlinePlace
from services.learner.model.load import load_policy
from services.learner.online.learner import online_learner
from services.learner.online.ports import WeightVersion
from services.weights.manifest import verify
from tests.unit import learner_parts as parts

HALVES = ["bfloat16", "float16"]


def bits(tensor: torch.Tensor) -> np.ndarray:
    """The 16 bits of each value."""
    return tensor.contiguous().view(torch.int16).numpy().view(np.uint16)


def train(tmp_path: Path, folder: str, dtype: str, fail_at: int | None = None) -> parts.FakeBoard:
    """Two episodes of eight pairs; a second call with the same folder goes on."""
    policy = tmp_path / "policy"
    if not policy.exists():
        parts.policy(policy, seed=1)
    held = parts.tokenizer()
    queues = parts.FakeQueues(
        {e: [parts.sampled_pair(held, e, i) for i in range(8)] for e in (1, 2)}
    )
    settings = OnlineDPOSettings.model_validate(
        {
            "policy": str(policy),
            "episodes": {"count": 2, "prompts": 8, "timeout_s": 5.0},
            # Small steps: some are lost when the weights are rounded.
            "train": {"optimizer": {"kind": "adamw", "lr": 2e-5}, "batch_size": 4},
        }
    )
    place = OnlinePlace.model_validate(
        {
            "stage": "online",
            "run": "run",
            "redis_url": "redis://nowhere",
            "folder": str(tmp_path / folder),
            "out": str(tmp_path / folder / "out"),
            "engine_dtype": dtype,
            "canary_tokens": [5, 6, 7, 8, 9, 10],
        }
    )
    board = parts.FakeBoard(queues.history, fail_at)
    if fail_at is None:
        online_learner(settings, place, lambda _: None, queues.open, board)
    else:
        with pytest.raises(ConnectionError):
            online_learner(settings, place, lambda _: None, queues.open, board)
    return board


def scored(model: Any, tokens: list[int]) -> list[float]:
    with torch.no_grad():
        logprobs = torch.log_softmax(model(torch.tensor([tokens])).logits[0], -1)
    return [logprobs[at - 1, tokens[at]].item() for at in range(1, len(tokens))]


@pytest.mark.parametrize("dtype", HALVES)
def test_a_16_bit_version_is_described_by_its_rounded_weights(tmp_path: Path, dtype: str) -> None:
    board, exact = train(tmp_path, dtype, dtype), train(tmp_path, "float32", "float32")
    policy, kind = load_policy(str(tmp_path / "policy")).eval(), getattr(torch, dtype)
    before: dict[str, np.ndarray] = {}
    for number in range(3):
        version, full = board.versions[number], exact.versions[number]
        for name, array in version.tensors.items():
            # The policy trains in float32 as for any engine, and is rounded on its way out.
            wanted = torch.from_numpy(np.array(full.tensors[name])).to(kind)
            assert np.array_equal(array.view(np.uint16), bits(wanted)), name
            counted = int((array != before[name]).sum()) if number else 0
            assert version.changed[name] == counted
            before[name] = array
            policy.get_parameter(name).data.copy_(wanted)
        expected = scored(policy, list(version.canary_tokens))
        assert list(version.canary_logprobs) == pytest.approx(expected, abs=1e-6)
        assert list(full.canary_logprobs) != pytest.approx(expected, abs=1e-6)
        assert verify(manifest_of(version), version.tensors) == []
    changed = [sum(each.versions[2].changed.values()) for each in (board, exact)]
    assert 0 < changed[0] < 0.9 * changed[1]
    values = sum(array.size for array in before.values())
    assert board.versions[2].metrics["changed_fraction"] == changed[0] / values


def test_rounding_leaves_no_trace_in_the_policy(tmp_path: Path) -> None:
    train(tmp_path, "bfloat16", "bfloat16")
    train(tmp_path, "float32", "float32")
    files = [tmp_path / dtype / "out" / "model.safetensors" for dtype in ("bfloat16", "float32")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_restart_counts_the_same_changes(tmp_path: Path) -> None:
    straight = train(tmp_path, "a", "bfloat16")
    train(tmp_path, "b", "bfloat16", fail_at=1)
    resumed = train(tmp_path, "b", "bfloat16")
    assert sorted(resumed.versions) == [0, 1, 2]
    for number in (1, 2):
        one, other = straight.versions[number], resumed.versions[number]
        assert dict(one.changed) == dict(other.changed)
        assert list(one.canary_logprobs) == list(other.canary_logprobs)
        assert manifest_of(one) == manifest_of(other)


def test_the_manifest_says_what_the_version_holds() -> None:
    tensors = {"w": np.array([1.0, 2.0], np.float32), "b": np.zeros(3, np.float32)}
    version = WeightVersion(
        run="run",
        version=4,
        base_version=3,
        dtype="float32",
        tensors=tensors,
        changed={"w": 1, "b": 0},
        canary_tokens=[1, 2, 3],
        canary_logprobs=[-1.0, -2.0],
        canary_tolerance=0.25,
        metrics={"loss": 0.5},
    )
    manifest = manifest_of(version)
    assert (manifest.run, manifest.version, manifest.base_version) == ("run", 4, 3)
    assert [(t.name, t.dtype, t.changed_values) for t in manifest.tensors] == [
        ("b", "float32", 0),
        ("w", "float32", 1),
    ]
    canary = manifest.canary
    assert (list(canary.token_ids), list(canary.logprobs)) == ([1, 2, 3], [-1.0, -2.0])
    assert canary.tolerance == 0.25
    assert verify(manifest, tensors) == []
