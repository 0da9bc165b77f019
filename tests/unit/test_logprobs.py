import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from services.learner.model.forward import passes
from services.learner.model.logprobs import summed_by_row, token_logprobs


class Head(torch.nn.Module):
    """An output head that notes how many positions each call is for."""

    def __init__(self, vocabulary: int, columns: int) -> None:
        super().__init__()
        # As large as it says without the memory: the bound reads the shape alone.
        self.weight = torch.zeros(1, 1).expand(vocabulary, 1)
        self.columns = columns
        self.calls: list[int] = []

    def forward(self, hidden: Tensor) -> Tensor:
        self.calls.append(hidden.shape[0])
        return torch.zeros(hidden.shape[0], self.columns)


def test_chunks_give_the_values_and_gradients_of_the_whole() -> None:
    torch.manual_seed(0)
    head = torch.nn.Linear(8, 50, bias=False)
    hidden = torch.randn(23, 8, requires_grad=True)
    targets = torch.randint(0, 50, (23,))
    expected = torch.log_softmax(head(hidden), -1)[torch.arange(23), targets]
    whole = torch.autograd.grad(expected.square().sum(), [hidden, head.weight])
    found = token_logprobs(hidden, head, targets, chunk_values=50 * 5)
    torch.testing.assert_close(found, expected)
    chunked = torch.autograd.grad(found.square().sum(), [hidden, head.weight])
    for a, b in zip(whole, chunked, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("tokens", "calls"), [(5, [5]), (6, [5, 1]), (10, [5, 5]), (13, [5, 5, 3])]
)
def test_a_chunk_holds_no_more_logits_than_its_bound(tokens: int, calls: list[int]) -> None:
    head = Head(50, 50)
    with torch.no_grad():
        token_logprobs(torch.zeros(tokens, 1), head, torch.zeros(tokens).long(), 50 * 5 + 49)
    assert head.calls == calls


def test_a_chunk_has_a_token_even_when_one_is_above_the_bound() -> None:
    head = Head(50, 50)
    with torch.no_grad():
        token_logprobs(torch.zeros(2, 1), head, torch.zeros(2).long(), chunk_values=49)
    assert head.calls == [1, 1]


def test_the_default_bound_is_128_mib_of_logits() -> None:
    head = Head(1 << 24, 2)
    with torch.no_grad():
        token_logprobs(torch.zeros(5, 1), head, torch.zeros(5).long())
    assert head.calls == [2, 2, 1]


def test_the_softmax_of_bfloat16_logits_is_taken_in_float32() -> None:
    torch.manual_seed(0)
    head = torch.nn.Linear(8, 400, bias=False).bfloat16()
    hidden = torch.randn(23, 8).bfloat16()
    targets = torch.randint(0, 400, (23,))
    expected = torch.log_softmax(head(hidden).double(), -1)[torch.arange(23), targets]
    found = token_logprobs(hidden, head, targets)
    assert found.dtype == torch.float32
    # bfloat16 keeps 8 bits: a softmax in it would be off by about 2e-2 at 6 nats.
    torch.testing.assert_close(found.double(), expected, rtol=0.0, atol=1e-5)


def test_a_pass_of_the_default_size_holds_16384_padded_tokens() -> None:
    assert passes([1 << 13] * 3) == [[0, 1], [2]]
    assert passes([(1 << 13) + 1, 5]) == [[0], [1]]


@given(st.lists(st.integers(1, 90), max_size=40), st.integers(20, 200))
def test_passes_are_as_full_as_their_bound_allows(lengths: list[int], tokens: int) -> None:
    groups = passes(lengths, tokens)
    order = sorted(range(len(lengths)), key=lambda at: (-lengths[at], at))
    assert [at for group in groups for at in group] == order
    for group in groups:
        assert lengths[group[0]] * len(group) <= tokens or len(group) == 1
    for group in groups[:-1]:
        assert lengths[group[0]] * (len(group) + 1) > tokens


def test_sums_go_to_their_rows() -> None:
    sums = summed_by_row(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 2, 2]), 3)
    assert sums.tolist() == [1.0, 0.0, 6.0]
