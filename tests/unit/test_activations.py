"""What is planned for activations, against what autograd really saves."""

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from services.learner.model.activations import activation_bytes, pass_tokens
from services.learner.model.packing import PrefixGroup
from services.learner.model.policy import Policy
from services.learner.model.precision import Dtype
from services.model_size import ModelSize, known_size


def config(layers: int, **changes: int) -> Qwen2Config:
    sizes = {
        "hidden_size": 256,
        "intermediate_size": 688,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    return Qwen2Config(vocab_size=512, num_hidden_layers=layers, **{**sizes, **changes})


def size(layers: int, **changes: int) -> ModelSize:
    return known_size(config(layers, **changes).to_dict())


def saved_bytes(of: Qwen2Config, dtype: Dtype) -> tuple[int, int]:
    """Of one pass: bytes that autograd keeps beside the weights, and tokens."""
    model = Qwen2ForCausalLM(of)
    policy = Policy(model, dtype)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        place = tensor.untyped_storage()
        if place.data_ptr() not in weights:
            kept[place.data_ptr()] = place.nbytes()
        return tensor

    group = PrefixGroup(range(24), (range(100, 140), range(200, 240)))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        held = policy.logprobs([group] * 8)
    assert held.values.requires_grad
    return sum(kept.values()), 8 * group.tokens


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [{}, {"num_key_value_heads": 4}, {"intermediate_size": 2048}])
def test_a_layer_keeps_what_is_planned(dtype: Dtype, shape: dict[str, int]) -> None:
    more, tokens = saved_bytes(config(4, **shape), dtype)
    less, _ = saved_bytes(config(2, **shape), dtype)
    width = 4 if dtype == "float32" else 2
    planned = activation_bytes(size(2, **shape), width, False)
    assert (more - less) / tokens == pytest.approx(planned, rel=0.03)


def test_checkpointing_and_small_models_let_more_through_at_once() -> None:
    wide = size(24, hidden_size=896, intermediate_size=4864, num_attention_heads=14)
    plain, checkpointed = (pass_tokens(wide, 4, each, "cpu") for each in (False, True))
    assert plain * activation_bytes(wide, 4, False) == pytest.approx(1.5 * 2**30, rel=0.01)
    assert checkpointed > 4 * plain
    assert pass_tokens(size(2), 4, False, "cpu") == 1 << 14
