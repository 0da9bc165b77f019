"""Log-probabilities of given tokens without their logits: the output head in tiles.

The tile over tokens x vocabulary is what exists of the logits at any time; its logsumexp is
carried on from tile to tile (online softmax, arXiv 1805.02867). The backward pass computes each
tile again (as Cut Cross-Entropy does, arXiv 2411.09009) and adds the head's gradient to the
float32 one in place, so that neither logits nor a second gradient of the head are ever held.
"""

from typing import Any

import torch
from torch import Tensor

_TOKENS = 4096
_VOCABULARY = 8192
"""Of a tile; on a CPU 8192 columns fit its caches and 32768 were a third slower."""


def token_logprobs(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    master: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """log p(target) in nats at each position, float32 [tokens].

    `hidden` [tokens, hidden_size], only where the next token counts; `weight` [vocabulary,
    hidden_size] of the head; `targets` int64 [tokens]. Products are computed in the dtype of
    `hidden`, to which `weight` is cast tile by tile; sums are float32. `master` is the float32
    parameter that `weight` is, or is a copy of: its `.grad` receives the gradient; without one the
    head has none. A `bias` [vocabulary] is a float32 parameter and gets its gradient the same way.
    """
    found: Tensor = _TiledHead.apply(hidden, weight, targets, master, bias)
    return found


def gradient_of(parameter: Tensor) -> Tensor:
    """The parameter's float32 gradient to add to; zeros when there was none yet."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter, dtype=torch.float32)
    return parameter.grad


class _TiledHead(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        master: Tensor | None,
        bias: Tensor | None,
    ) -> Tensor:
        logsumexp = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        chosen = torch.empty_like(logsumexp)
        for rows in _tiles(len(targets), _TOKENS):
            largest = torch.full_like(logsumexp[rows], float("-inf"))
            total = torch.zeros_like(largest)
            for columns in _tiles(len(weight), _VOCABULARY):
                logits = _logits(hidden[rows], weight[columns], bias, columns)
                at, column = _inside(targets[rows], columns)
                chosen[rows].index_copy_(0, at, logits[at, column])
                higher = torch.maximum(largest, logits.amax(dim=1))
                total.mul_(torch.exp(largest - higher))
                total.add_(logits.sub_(higher[:, None]).exp_().sum(dim=1))
                largest = higher
            logsumexp[rows] = largest + total.log()
        ctx.save_for_backward(hidden, weight, targets, logsumexp)
        ctx.master, ctx.bias = master, bias
        return chosen - logsumexp

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        hidden, weight, targets, logsumexp = ctx.saved_tensors
        (upstream,) = grads
        below = torch.zeros(hidden.shape, dtype=torch.float32, device=hidden.device)
        of_weight = None if ctx.master is None else gradient_of(ctx.master)
        of_bias = None if ctx.bias is None or ctx.master is None else gradient_of(ctx.bias)
        for rows in _tiles(len(targets), _TOKENS):
            seen, scale = hidden[rows], upstream[rows]
            for columns in _tiles(len(weight), _VOCABULARY):
                # d log p(target) / d logit = [target] - p(token)
                slope = _logits(seen, weight[columns], ctx.bias, columns)
                slope.sub_(logsumexp[rows, None]).exp_().mul_(-scale[:, None])
                at, column = _inside(targets[rows], columns)
                slope[at, column] += scale[at]
                if of_bias is not None:
                    of_bias[columns] += slope.sum(dim=0)
                slope = slope.to(hidden.dtype)
                _add_product(below[rows], slope, weight[columns].to(hidden.dtype))
                if of_weight is not None:
                    _add_product(of_weight[columns], slope.T, seen)
        return below.to(hidden.dtype), None, None, None, None


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, columns: slice) -> Tensor:
    logits = (hidden @ weight.to(hidden.dtype).T).float()
    return logits if bias is None else logits.add_(bias[columns])


def _inside(targets: Tensor, columns: slice) -> tuple[Tensor, Tensor]:
    """Rows whose target lies within the columns, and its place among them."""
    at = ((targets >= columns.start) & (targets < columns.stop)).nonzero()[:, 0]
    return at, targets[at] - columns.start


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, `total` in float32."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total.add_(left @ right)


def _tiles(count: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
