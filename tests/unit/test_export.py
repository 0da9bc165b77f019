import json
from pathlib import Path

import torch

from services.learner.model.export import export_model
from services.learner.model.load import new_model
from services.learner.model.special import special_ids
from tests.unit import learner_parts as parts


def test_an_exported_policy_loads_with_the_same_logits(tmp_path: Path) -> None:
    held = parts.tokenizer()
    model = new_model(parts.SHAPE, held, 3).eval()
    export_model(model, held, tmp_path / "out")
    ids = list(range(5, 25))
    with torch.no_grad():
        expected = model(torch.tensor([ids])).logits
    assert torch.equal(parts.logits(str(tmp_path / "out"), ids), expected)
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    ends, pad = special_ids(held)
    assert generation["eos_token_id"] == ends
    assert generation["pad_token_id"] == pad
    assert len(set(ends)) == 2


def test_new_models_depend_on_their_seed_alone() -> None:
    held = parts.tokenizer()
    first, again, other = (new_model(parts.SHAPE, held, seed) for seed in (1, 1, 2))
    name = "model.layers.0.mlp.up_proj.weight"
    assert torch.equal(first.get_parameter(name), again.get_parameter(name))
    assert not torch.equal(first.get_parameter(name), other.get_parameter(name))
