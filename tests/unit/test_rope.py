"""Rotary positions changed in place: as the model reads them from its folder afterwards."""

import json
import math
from pathlib import Path

import pytest
import torch

from services.learner.model.export import export_model
from services.learner.model.load import new_model
from services.learner.model.rope import set_rope
from tests.unit import learner_parts as parts

IDS = list(range(5, 205))


def test_a_larger_base_is_exported_with_the_model(tmp_path: Path) -> None:
    held = parts.tokenizer()
    model = new_model(parts.SHAPE.model_copy(update={"rope_theta": 200.0}), held, 1).eval()
    with torch.no_grad():
        before = model(torch.tensor([IDS])).logits
        set_rope(model, 10_000.0, 512)
        after = model(torch.tensor([IDS])).logits
    assert not torch.allclose(before, after, atol=1e-3)
    export_model(model, held, tmp_path)
    torch.testing.assert_close(parts.logits(str(tmp_path), IDS), after)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["max_position_embeddings"] == 512
    assert config["rope_parameters"] == {"rope_type": "default", "rope_theta": 10_000.0}


def test_yarn_stretches_the_long_waves_alone(tmp_path: Path) -> None:
    held = parts.tokenizer()
    model = new_model(parts.SHAPE, held, 1).eval()
    set_rope(model, 10_000.0, 128, yarn_factor=4.0)
    rotary = model.model.rotary_emb
    plain = [10_000.0 ** (-2 * i / 8) for i in range(4)]
    # Eight dimensions a head: waves of 6, 63, 628 and 6283 tokens. The first makes over 20 turns in
    # 128 tokens and is nearly left; the last two make less than one and are stretched whole.
    ratio = [found / before for found, before in zip(rotary.inv_freq.tolist(), plain, strict=True)]
    assert ratio[0] > 0.99
    assert 0.25 < ratio[1] < 1.0
    assert ratio[2:] == pytest.approx([0.25, 0.25])
    assert rotary.attention_scaling == pytest.approx(0.1 * math.log(4.0) + 1.0)
    with torch.no_grad():
        stretched = model(torch.tensor([IDS])).logits
    export_model(model, held, tmp_path)
    torch.testing.assert_close(parts.logits(str(tmp_path), IDS), stretched)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["max_position_embeddings"] == 512
    assert config["rope_parameters"] == {
        "rope_type": "yarn",
        "rope_theta": 10_000.0,
        "factor": 4.0,
        "original_max_position_embeddings": 128,
    }
