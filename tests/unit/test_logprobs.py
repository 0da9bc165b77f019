import torch

from services.learner.model.logprobs import summed_by_row, token_logprobs


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


def test_sums_go_to_their_rows() -> None:
    sums = summed_by_row(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 2, 2]), 3)
    assert sums.tolist() == [1.0, 0.0, 6.0]
