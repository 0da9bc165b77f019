import json
from pathlib import Path

import pytest
import torch

from services.errors import LineageError
from services.learner.model.export import export_model
from services.learner.model.load import new_model
from services.learner.model.shape import ModelShape
from services.learner.model.special import special_ids
from services.learner.optim.build import reference_vector
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


def named(shape: ModelShape) -> dict[str, torch.Tensor]:
    return dict(new_model(shape, parts.tokenizer(), 0).named_parameters())


def test_a_reference_vector_of_other_shapes_names_the_tensor() -> None:
    wide = parts.SHAPE.model_copy(update={"intermediate_size": 96})
    with pytest.raises(LineageError, match=r"model\.layers\.0\.mlp\.gate_proj\.weight"):
        reference_vector(named(parts.SHAPE), named(wide))
    deep = parts.SHAPE.model_copy(update={"layers": 3})
    with pytest.raises(LineageError, match=r"model\.layers\.2\..*missing in the reference"):
        reference_vector(named(parts.SHAPE), named(deep))
