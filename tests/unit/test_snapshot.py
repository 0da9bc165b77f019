"""A folder as a weight version: its canary is a float32 forward of the rounded weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Qwen2ForCausalLM

from services.weights.manifest import verify
from services.weights.snapshot import snapshot_folder
from tests.e2e import tiny_qwen2


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_canary_is_scored_in_float32_from_the_rounded_weights(
    tmp_path: Path, dtype: str, *, tied: bool
) -> None:
    folder = tiny_qwen2.save(tmp_path / "policy", tied=tied, seed=3)
    manifest, tensors = snapshot_folder(folder, dtype, 7)
    assert manifest.version == 7
    assert verify(manifest, tensors) == []
    assert ("lm_head.weight" in tensors) is not tied
    rounded = Qwen2ForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).float()
    rounded.save_pretrained(tmp_path / "rounded")
    wanted = tiny_qwen2.scores(tmp_path / "rounded", list(manifest.canary.token_ids))
    assert np.allclose(list(manifest.canary.logprobs), wanted, rtol=1e-5, atol=1e-5)
