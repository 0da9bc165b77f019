"""Attention within packed groups, as transformers' models call it.

A token sees the prefix of its group and what stands before it in its own part; never another
suffix, never another group.
"""

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

from services.errors import WorkerError
from services.learner.model.packing import Packing, Padded, taken

NAME = "pairloop_packed"
"""Under which transformers finds it; a name without a mask function gets no mask made."""


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packing: Packing,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention over one packed row.

    `query` [1, heads, tokens, size], `key` and `value` [1, key heads, tokens, size]; returns
    [1, tokens, heads, size], computed in the dtype of `value`. Raises WorkerError where the
    model's sliding window would cut.
    """
    if sliding_window is not None and packing.longest > sliding_window:
        raise WorkerError(
            f"an example of {packing.longest} tokens is longer than the model's sliding window of "
            f"{sliding_window}, which training does not follow; set train.max_length to it"
        )
    query, key = query.to(value.dtype), key.to(value.dtype)  # RoPE may have left them in float32
    if query.device.type == "cuda":
        return _flex(query, key, value, packing, scaling), None
    queries, keys, values = [tensor[0].transpose(0, 1) for tensor in (query, key, value)]
    results = [_call(queries, keys, values, call, scaling, dropout) for call in packing.calls]
    return taken(torch.cat(results), packing.restore)[None], None


def _call(
    query: Tensor, key: Tensor, value: Tensor, call: Padded, scaling: float | None, dropout: float
) -> Tensor:
    """One padded call over rows [tokens, heads, size]: [sequences * longest, heads, size]."""
    found = F.scaled_dot_product_attention(
        _taken(query, call.queries),
        _taken(key, call.keys),
        _taken(value, call.keys),
        attn_mask=call.bias,
        is_causal=call.bias is None,
        dropout_p=dropout,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return found.transpose(1, 2).flatten(0, 1)


def _taken(rows: Tensor, places: Tensor) -> Tensor:
    """[tokens, heads, size] at places [sequences, longest]: [sequences, heads, longest, size]."""
    return taken(rows, places).transpose(1, 2)


def _flex(
    query: Tensor, key: Tensor, value: Tensor, packing: Packing, scaling: float | None
) -> Tensor:
    """The same on a GPU, in one kernel that skips what is not visible."""
    found: Tensor = _compiled_flex()(
        query,
        key,
        value,
        block_mask=_block_mask(packing),
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return found.transpose(1, 2)


@lru_cache(maxsize=1)
def _compiled_flex() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True)


@lru_cache(maxsize=1)
def _block_mask(packing: Packing) -> Any:
    """For all layers of a pass. Cached by identity: a Packing is made once a pass."""
    from torch.nn.attention.flex_attention import create_block_mask

    group, branch = packing.group, packing.branch

    def visible(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        own = (branch[key] < 0) | (branch[key] == branch[query])
        return (group[key] == group[query]) & own & (key <= query)

    tokens = len(packing.ids)
    return create_block_mask(visible, None, None, tokens, tokens, device=packing.ids.device)


AttentionInterface.register(NAME, packed_attention)
