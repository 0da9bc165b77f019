import json
from pathlib import Path

import pytest
import torch

from services.errors import LineageError
from services.learner.model.export import export_model
from services.learner.model.forward import each_row_logprobs
from services.learner.model.load import new_model, new_reward_model, special_ids
from services.learner.optim.build import reference_vector
from services.learner.train.encoding import EncodedPair
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


def test_row_logprobs_are_those_of_a_plain_forward_pass() -> None:
    held = parts.tokenizer()
    model = new_model(parts.SHAPE, held, 3).eval()
    pair = EncodedPair("x", [5, 6, 7], [8, 9, 10, 11], [12, 13])
    rows = pair.rows()
    for (ids, start), found in zip(
        rows, each_row_logprobs(model, rows, special_ids(held)[1], "float32"), strict=True
    ):
        with torch.no_grad():
            plain = torch.log_softmax(model(torch.tensor([ids])).logits[0], -1)
        expected = [plain[at - 1, ids[at]].item() for at in range(start, len(ids))]
        assert found.tolist() == pytest.approx(expected, abs=1e-5)


def test_a_reward_model_reads_the_last_token_whatever_the_padding(tmp_path: Path) -> None:
    from services.learner.model.forward import scores

    held = parts.tokenizer()
    model = new_reward_model(parts.policy(tmp_path / "policy"), held, 5).eval()
    pad = special_ids(held)[1]
    with torch.no_grad():
        together = scores(model, [[5, 6, 7, 8, 9], [5, 6]], pad, "float32")
        alone = scores(model, [[5, 6]], pad, "float32")
    assert together[1].item() == pytest.approx(alone[0].item(), abs=1e-6)


def test_a_reference_vector_of_other_shapes_names_the_tensor() -> None:
    held = parts.tokenizer()
    wide = parts.SHAPE.model_copy(update={"intermediate_size": 96})
    with pytest.raises(LineageError, match=r"model\.layers\.0\.mlp\.gate_proj\.weight"):
        reference_vector(new_model(parts.SHAPE, held, 0), new_model(wide, held, 0))
    deep = parts.SHAPE.model_copy(update={"layers": 3})
    with pytest.raises(LineageError, match=r"model\.layers\.2\..*missing in the reference"):
        reference_vector(new_model(parts.SHAPE, held, 0), new_model(deep, held, 0))
