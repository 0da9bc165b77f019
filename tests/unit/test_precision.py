"""bfloat16 passes: cast once a step, float32 masters, near float32 over a hundred steps."""

import copy

import pytest
import torch

from services.learner.model.packing import PrefixGroup
from services.learner.model.policy import Policy
from tests.unit.test_policy import GROUPS, module


def test_matrices_are_copied_once_and_vectors_stay_as_they_are() -> None:
    model = module()
    masters = dict(model.named_parameters())
    policy = Policy(model, "bfloat16")
    assert policy.named_parameters() == masters
    for name, working in model.named_parameters():
        if masters[name].ndim < 2:
            assert working is masters[name]
        else:
            assert torch.equal(working, masters[name].bfloat16()), name
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_a_step_reaches_the_working_copies_when_they_are_refreshed() -> None:
    model = module()
    policy = Policy(model, "bfloat16")
    before = policy.logprobs(GROUPS).values
    with torch.no_grad():
        for parameter in policy.named_parameters().values():
            parameter.mul_(1.5)
    policy.refresh()
    after = policy.logprobs(GROUPS).values
    assert (before - after).abs().max() > 0.01
    for name, working in model.named_parameters():
        assert torch.equal(working, policy.named_parameters()[name].to(working.dtype))


def test_gradients_end_in_the_float32_masters_and_add_up_over_passes() -> None:
    exact, policy = Policy(module(), "float32"), Policy(module(), "bfloat16")
    for groups in (GROUPS[:2], GROUPS[2:]):
        for each in (exact, policy):
            each.logprobs(groups).values.sum().backward()
    for name, parameter in policy.named_parameters().items():
        expected = exact.named_parameters()[name].grad
        assert parameter.grad.dtype == torch.float32
        if "k_proj.bias" not in name:  # moves every score of a query alike: all rounding
            assert (parameter.grad - expected).norm() < 0.05 * expected.norm(), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_an_engine_gets_the_masters_rounded_whatever_the_policy_computes_in(
    dtype: torch.dtype,
) -> None:
    for computes_in in ("float32", "bfloat16"):
        policy = Policy(module(), computes_in)
        found = dict(policy.in_dtype(dtype))
        for name, parameter in policy.named_parameters().items():
            assert torch.equal(found[name], parameter.detach().to(dtype)), name


def test_a_hundred_steps_stay_near_those_in_float32() -> None:
    """The loss of every step within 2% of float32's, as is the sum of the distances gone."""
    start, losses, weights = module(), {}, {}
    texts = [PrefixGroup([], [list(range(5 + at, 25 + at))]) for at in range(8)]
    for dtype in ("float32", "bfloat16"):
        policy = Policy(copy.deepcopy(start), dtype)
        parameters = list(policy.named_parameters().values())
        optimizer = torch.optim.AdamW(parameters, lr=1e-3)
        losses[dtype] = []
        for _ in range(100):
            optimizer.zero_grad()
            loss = -policy.logprobs(texts).values.mean()
            loss.backward()
            optimizer.step()
            policy.refresh()
            losses[dtype].append(loss.item())
        moved = zip(parameters, start.parameters(), strict=True)
        weights[dtype] = sum((a.detach() - b.detach()).norm() ** 2 for a, b in moved) ** 0.5
    assert losses["float32"][-1] < 0.3 * losses["float32"][0]
    for exact, half in zip(losses["float32"], losses["bfloat16"], strict=True):
        assert half == pytest.approx(exact, rel=0.02, abs=0.02)
    assert weights["bfloat16"] == pytest.approx(float(weights["float32"]), rel=0.02)
