"""The tiled head against log_softmax: values, gradients, what it holds."""

import pytest
import torch
from torch import Tensor

from services.learner.model import head
from services.learner.model.head import token_logprobs


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several tiles each way, neither of which divides what is cut."""
    monkeypatch.setattr(head, "_TOKENS", 5)
    monkeypatch.setattr(head, "_VOCABULARY", 7)


def parts(biased: bool, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    torch.manual_seed(0)
    hidden = torch.randn(13, 8).to(dtype)
    weight = torch.nn.Parameter(torch.randn(24, 8))
    bias = torch.nn.Parameter(torch.randn(24)) if biased else None
    return hidden, weight, bias, torch.randint(0, 24, (13,))


def plain(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
    logits = hidden.double() @ weight.double().T
    logits = logits if bias is None else logits + bias.double()
    return logits.log_softmax(-1)[torch.arange(len(targets)), targets]


@pytest.mark.parametrize("biased", [False, True])
def test_values_and_gradients_are_those_of_log_softmax(biased: bool) -> None:
    hidden, weight, bias, targets = parts(biased)
    upstream = torch.linspace(-1, 1, 13)
    exact = [t.detach().double().requires_grad_() for t in (hidden, weight)]
    of_bias = None if bias is None else bias.detach().double().requires_grad_()
    expected = plain(exact[0], exact[1], of_bias, targets)
    (expected * upstream).sum().backward()
    hidden.requires_grad_()
    found = token_logprobs(hidden, weight, targets, weight, bias)
    (found * upstream).sum().backward()
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(hidden.grad.double(), exact[0].grad, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(weight.grad.double(), exact[1].grad, rtol=1e-5, atol=1e-6)
    if bias is not None:
        torch.testing.assert_close(bias.grad.double(), of_bias.grad, rtol=1e-5, atol=1e-6)


def test_gradients_are_added_to_what_is_there_and_in_place() -> None:
    hidden, weight, _, targets = parts(biased=False)
    token_logprobs(hidden, weight, targets, weight).sum().backward()
    once, place = weight.grad.clone(), weight.grad.data_ptr()
    token_logprobs(hidden, weight, targets, weight).sum().backward()
    assert weight.grad.data_ptr() == place
    torch.testing.assert_close(weight.grad, 2 * once)


def test_a_frozen_head_gets_no_gradient_and_its_input_does() -> None:
    hidden, weight, _, targets = parts(biased=False)
    hidden.requires_grad_()
    token_logprobs(hidden, weight.detach(), targets).sum().backward()
    assert weight.grad is None
    assert hidden.grad.abs().sum() > 0


def test_in_bfloat16_sums_and_the_head_gradient_are_float32() -> None:
    hidden, weight, _, targets = parts(biased=False, dtype=torch.bfloat16)
    hidden.requires_grad_()
    half = weight.detach().bfloat16().requires_grad_()
    found = token_logprobs(hidden, half, targets, weight)
    found.sum().backward()
    assert (found.dtype, weight.grad.dtype, half.grad) == (torch.float32, torch.float32, None)
    # The logits keep 8 bits: their softmax in bfloat16 would be off by 2e-2 at 6 nats.
    logits = (hidden.detach() @ half.detach().T).double()
    expected = logits.log_softmax(-1)[torch.arange(13), targets]
    torch.testing.assert_close(found.double(), expected, rtol=0.0, atol=1e-5)


def test_very_large_logits_do_not_overflow() -> None:
    hidden, weight, _, targets = parts(biased=False)
    found = token_logprobs(hidden * 1e4, weight, targets)
    expected = plain(hidden * 1e4, weight, None, targets)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-2)
