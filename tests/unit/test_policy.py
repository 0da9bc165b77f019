"""Packed groups against plain unpadded rows of the same transformers model: values, gradients."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from services.errors import ArtifactError, WorkerError
from services.learner.model.frozen import FrozenPolicy
from services.learner.model.load import load_frozen, new_model, new_reward_model
from services.learner.model.packing import PrefixGroup, pack_groups
from services.learner.model.policy import Policy, ScoreModel
from services.learner.train.limit import FlopCount, Work
from tests.unit import learner_parts as parts

CPU = torch.device("cpu")
GROUPS = [
    PrefixGroup([5, 6, 7, 8, 9, 10, 11], [[12, 13, 14], [15, 16, 17, 18, 19]]),
    PrefixGroup([20, 21], [[22], [23, 24]]),
    PrefixGroup([], [[25, 26, 27, 28, 29, 30]]),
    PrefixGroup([31, 32, 33], [[34, 35], [36, 37], [38, 39, 40, 41]]),
    PrefixGroup([], [[42, 43, 44, 45, 46]], [[1, 0, 1, 1, 0]]),
]


def shape(tied: bool) -> Any:
    return parts.SHAPE.model_copy(update={"tied_embeddings": tied})


def module(tied: bool = True) -> Any:
    """Biases and norms drawn as well: new ones are 0 and 1, which hides where they go."""
    made = new_model(shape(tied), parts.tokenizer(), 3).eval()
    torch.manual_seed(7)
    for parameter in made.parameters():
        if parameter.ndim < 2:
            parameter.data.add_(0.3 * torch.randn_like(parameter))
    return made


def plain(model: Any, groups: Sequence[PrefixGroup]) -> Tensor:
    """Each suffix in a row of its own, after its prefix."""
    found = []
    for group in groups:
        for at, suffix in enumerate(group.suffixes):
            row = [*group.prefix, *suffix]
            logprobs = model(torch.tensor([row])).logits[0].float().log_softmax(-1)
            for place, token in enumerate(suffix):
                here = len(group.prefix) + place
                if here and (group.learnt is None or group.learnt[at][place]):
                    found.append(logprobs[here - 1, token])
    return torch.stack(found)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_log_probabilities_and_gradients_are_those_of_unpacked_rows(
    tied: bool, checkpointing: bool
) -> None:
    exact = module(tied)
    packed = copy.deepcopy(exact)
    if checkpointing:
        packed.gradient_checkpointing_enable({"use_reentrant": False})
    policy = Policy(packed, "float32")
    policy.train(checkpointing)
    expected = plain(exact, GROUPS)
    upstream = torch.linspace(-1, 1, len(expected))
    (expected * upstream).sum().backward()
    found = policy.logprobs(GROUPS)
    (found.values * upstream).sum().backward()
    torch.testing.assert_close(found.values, expected, rtol=1e-5, atol=1e-6)
    assert (
        found.suffix.tolist()
        == [0] * 3 + [1] * 5 + [2] + [3] * 2 + [4] * 5 + [5] * 2 + [6] * 2 + [7] * 4 + [8] * 2
    )
    for name, parameter in exact.named_parameters():
        ours = policy.named_parameters()[name].grad
        assert (ours - parameter.grad).norm() <= 1e-5 * parameter.grad.norm(), name


def test_sums_go_to_their_suffixes() -> None:
    found = Policy(module(), "float32").logprobs(GROUPS)
    by_suffix = found.by_suffix()
    assert [len(values) for values in by_suffix] == [3, 5, 1, 2, 5, 2, 2, 4, 2]
    sums = torch.stack([values.sum() for values in by_suffix])
    torch.testing.assert_close(found.summed().detach(), sums)


groups_drawn = st.lists(
    st.builds(
        PrefixGroup,
        st.lists(st.integers(5, 50), max_size=6),
        st.lists(st.lists(st.integers(5, 50), min_size=2, max_size=6), min_size=1, max_size=3),
    ),
    min_size=1,
    max_size=4,
)


@given(groups_drawn)
@settings(max_examples=25, deadline=None)
def test_no_group_changes_another(groups: list[PrefixGroup]) -> None:
    model = FROZEN
    together = model.logprobs(groups).by_suffix()
    alone = [values for group in groups for values in model.logprobs([group]).by_suffix()]
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def frozen(model: Any, dtype: Any = "float32") -> FrozenPolicy:
    tensors = {name: p.detach() for name, p in model.named_parameters()}
    return FrozenPolicy(tensors, model.config, dtype, CPU)


FROZEN = frozen(module())


def test_a_frozen_policy_is_the_policy_without_gradients() -> None:
    model = module()
    found = frozen(model).logprobs(GROUPS).values
    assert not found.requires_grad
    assert torch.equal(found, Policy(model, "float32").logprobs(GROUPS).values)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_stored_halves_are_computed_with_in_float32(dtype: torch.dtype) -> None:
    halves = module().to(dtype)
    tensors = {name: p.detach() for name, p in halves.named_parameters()}
    policy = FrozenPolicy(tensors, halves.config, "float32", CPU)
    expected = plain(copy.deepcopy(halves).float(), GROUPS).detach()
    for _ in range(2):
        torch.testing.assert_close(policy.logprobs(GROUPS).values, expected, rtol=1e-5, atol=1e-5)
        policy.release()
    assert all(tensor.dtype == dtype for tensor in tensors.values())


def test_a_frozen_policy_reads_a_folder_where_it_lies(tmp_path: Path) -> None:
    folder = parts.policy(tmp_path / "policy", seed=3)
    expected = plain(new_model(parts.SHAPE, parts.tokenizer(), 3).eval(), GROUPS).detach()
    found = load_frozen(folder, "float32", CPU).logprobs(GROUPS).values
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_weights_of_another_model_are_refused() -> None:
    model = module()
    tensors = {name: p.detach() for name, p in model.named_parameters()}
    lacking = {name: t for name, t in tensors.items() if "layers.1.mlp.up" not in name}
    with pytest.raises(ArtifactError, match=r"model\.layers\.1\.mlp\.up_proj\.weight"):
        FrozenPolicy(lacking, model.config, "float32", CPU)
    with pytest.raises(ArtifactError, match="the stored weights have extra"):
        FrozenPolicy({**tensors, "extra": torch.zeros(1)}, model.config, "float32", CPU)


def test_an_example_longer_than_a_sliding_window_is_refused() -> None:
    model = module()
    model.model.layers[1].self_attn.sliding_window = 9
    policy = Policy(model, "float32")
    policy.logprobs([PrefixGroup([5] * 4, [[6] * 5])])
    with pytest.raises(WorkerError, match=r"10 tokens is longer than .* window of 9"):
        policy.logprobs([PrefixGroup([5] * 4, [[6] * 6])])


def test_scores_are_read_at_the_last_token_of_each_suffix(tmp_path: Path) -> None:
    folder = parts.policy(tmp_path / "policy")
    exact = new_reward_model(folder, parts.tokenizer(), 5).eval()
    model = ScoreModel(copy.deepcopy(exact), "float32")
    found = model.scores(GROUPS)
    rows = [[*group.prefix, *suffix] for group in GROUPS for suffix in group.suffixes]
    expected = torch.cat([exact(torch.tensor([row])).logits[:, 0] for row in rows])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    expected.square().sum().backward()
    found.square().sum().backward()
    for name, parameter in exact.named_parameters():
        ours = model.named_parameters()[name].grad
        if parameter.grad is not None and parameter.grad.norm() > 0:
            assert (ours - parameter.grad).norm() <= 1e-5 * parameter.grad.norm(), name


def test_nothing_of_a_prefix_goes_through_twice() -> None:
    packing = pack_groups(GROUPS, CPU)
    assert len(packing.ids) == sum(group.tokens for group in GROUPS) == 42
    assert packing.positions[:15].tolist() == [*range(7), 7, 8, 9, *range(7, 12)]
    assert packing.longest == 12


def test_operations_are_counted_with_the_prefix_once() -> None:
    policy = Policy(module(), "float32")
    count = FlopCount.of(policy.size)
    policy.logprobs([PrefixGroup([5, 6, 7], [[8, 9], [10]])])
    first = count.useful(Work(tokens=6, learnt=3, attended=6 + (2 * 3 + 3) + (1 * 3 + 1)))
    assert policy.useful_flops == first
    policy.logprobs([PrefixGroup([], [[5, 6, 7]], [[0, 0, 1]])])
    assert policy.useful_flops == first + count.useful(Work(tokens=3, learnt=1, attended=6))
    assert policy.flops_limit > 0


def test_the_gpu_mask_lets_each_token_see_what_the_calls_let_it_see() -> None:
    packing = pack_groups(GROUPS, CPU)
    tokens = len(packing.ids)
    seen = torch.zeros(tokens, tokens, dtype=torch.bool)
    results = []
    for call in packing.calls:
        for queries, keys, at in zip(
            call.queries, call.keys, range(len(call.queries)), strict=True
        ):
            for row, query in enumerate(queries.tolist()):
                allowed = (
                    torch.arange(len(keys)) <= row
                    if call.bias is None
                    else call.bias[at, 0, row] == 0
                )
                results.append((query, set(keys[allowed].tolist())))
    for token in range(tokens):
        query, keys = results[int(packing.restore[token])]
        assert query == token
        seen[token, sorted(keys)] = True
    group, branch, order = packing.group, packing.branch, torch.arange(tokens)
    own = (branch[None] < 0) | (branch[None] == branch[:, None])
    expected = (group[None] == group[:, None]) & own & (order[None] <= order[:, None])
    assert torch.equal(seen, expected)


def test_the_same_pass_gives_the_same_gradients_to_the_bit() -> None:
    """Large enough that several threads share every operation."""
    wide = parts.SHAPE.model_copy(update={"hidden_size": 128, "intermediate_size": 256})
    policy = Policy(new_model(wide, parts.tokenizer(), 3), "float32")
    three = (range(60, 120), range(90, 150), range(100, 160))
    groups = [PrefixGroup(range(5, 60), three) for _ in range(24)]
    before, found = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        for _ in range(8):
            for parameter in policy.named_parameters().values():
                parameter.grad = None
            policy.logprobs(groups).summed().square().sum().backward()
            found.append({n: p.grad.clone() for n, p in policy.named_parameters().items()})
    finally:
        torch.set_num_threads(before)
    for again in found[1:]:
        for name, grad in again.items():
            assert torch.equal(grad, found[0][name]), name
