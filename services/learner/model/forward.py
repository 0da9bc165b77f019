"""Token rows through a model: hidden states, answer log-probabilities, scalar scores.

Rows are padded on the right, and a causal model never looks to the right: so no attention mask
is passed and the fast causal attention kernels apply.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from services.learner.model.logprobs import token_logprobs

Dtype = Literal["float32", "bfloat16"]
_PASS_TOKENS = 1 << 14
"""Padded tokens of one forward pass without gradients."""

Row = tuple[Sequence[int], int]
"""Token ids, and the place of the first token whose log-probability counts (at least 1)."""


def padded(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> Tensor:
    """int64 [rows, longest], padded on the right."""
    longest = max(len(row) for row in rows)
    full = [[*row, *([pad] * (longest - len(row)))] for row in rows]
    return torch.tensor(full, dtype=torch.int64, device=device)


def row_logprobs(model: Any, rows: Sequence[Row], pad: int, dtype: Dtype) -> tuple[Tensor, Tensor]:
    """Log-probabilities in nats of each row's tokens from its start on.

    Returns float32 [tokens], row by row, and the row of each, int64 [tokens]. The output head
    is run on those positions alone.
    """
    device = next(model.parameters()).device
    ids = padded([row for row, _ in rows], pad, device)
    starts = torch.tensor([start for _, start in rows], device=device).unsqueeze(1)
    ends = torch.tensor([len(row) for row, _ in rows], device=device).unsqueeze(1)
    place = torch.arange(1, ids.shape[1], device=device)
    counts = (place >= starts) & (place < ends)
    return masked_logprobs(model, ids, counts, dtype), counts.nonzero()[:, 0]


def masked_logprobs(model: Any, ids: Tensor, counts: Tensor, dtype: Dtype) -> Tensor:
    """log p(ids[:, 1:]) where `counts` (bool [rows, length - 1]) is set: float32 [tokens]."""
    with torch.autocast(ids.device.type, torch.bfloat16, enabled=dtype == "bfloat16"):
        hidden = model.base_model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
        return token_logprobs(hidden[counts], model.get_output_embeddings(), ids[:, 1:][counts])


def scores(model: Any, rows: Sequence[Sequence[int]], pad: int, dtype: Dtype) -> Tensor:
    """A reward model's scalar for each row, float32 [rows]."""
    ids = padded(rows, pad, next(model.parameters()).device)
    with torch.autocast(ids.device.type, torch.bfloat16, enabled=dtype == "bfloat16"):
        logits: Tensor = model(input_ids=ids, use_cache=False).logits
    return logits[:, 0].float()


def each_row_logprobs(model: Any, rows: Sequence[Row], pad: int, dtype: Dtype) -> list[Tensor]:
    """Per-token log-probabilities of every row, float32 on the CPU, in the order given.

    Without gradients.
    """
    found: list[Tensor] = [torch.empty(0)] * len(rows)
    with torch.no_grad():
        for part in passes([len(row) for row, _ in rows]):
            logprobs, row_of = row_logprobs(model, [rows[at] for at in part], pad, dtype)
            sizes = torch.bincount(row_of, minlength=len(part)).tolist()
            for at, values in zip(part, logprobs.cpu().split(sizes), strict=True):
                found[at] = values
    return found


def passes(lengths: Sequence[int], tokens: int = _PASS_TOKENS) -> list[list[int]]:
    """Rows grouped by length so that a group's padded tokens stay within `tokens`."""
    groups: list[list[int]] = []
    longest = 0
    for at in sorted(range(len(lengths)), key=lambda at: (-lengths[at], at)):
        if not groups or longest * (len(groups[-1]) + 1) > tokens:
            groups.append([])
            longest = lengths[at]
        groups[-1].append(at)
    return groups
