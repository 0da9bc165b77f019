"""Log-probabilities of given tokens, never with a whole batch's [tokens, vocabulary] softmax."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

CHUNK_VALUES = 1 << 25
"""Logits that exist at once (128 MiB in float32)."""


def token_logprobs(
    hidden: Tensor, head: nn.Module, targets: Tensor, chunk_values: int = CHUNK_VALUES
) -> Tensor:
    """log p(target) in nats at each position, float32 [tokens].

    `hidden` [tokens, hidden_size] holds only the positions whose next token counts; `head` maps
    it to logits [tokens, vocabulary]; `targets` int64 [tokens]. Above `chunk_values` logits the
    tokens are taken in chunks whose logits are computed again in the backward pass.
    """
    vocabulary = head.weight.shape[0]
    rows = max(1, chunk_values // vocabulary)
    if hidden.shape[0] <= rows:
        return _logprobs(hidden, head, targets)
    parts = []
    for part, wanted in zip(hidden.split(rows), targets.split(rows), strict=True):
        if torch.is_grad_enabled():
            parts.append(checkpoint(_logprobs, part, head, wanted, use_reentrant=False))
        else:
            parts.append(_logprobs(part, head, wanted))
    return torch.cat(parts)


def summed_by_row(values: Tensor, rows: Tensor, count: int) -> Tensor:
    """Sums of `values` [tokens] by the row each belongs to (int64 [tokens]): [count]."""
    return values.new_zeros(count).index_add(0, rows, values)


def _logprobs(hidden: Tensor, head: nn.Module, targets: Tensor) -> Tensor:
    return -F.cross_entropy(head(hidden).float(), targets, reduction="none")
