"""Summed log-probabilities of pairs under a model that does not train: computed once, up front."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from services.learner.batches import shard
from services.learner.examples import EncodedPair
from services.learner.forward import Dtype, each_row_logprobs
from services.learner.worker import Worker


def pair_logprobs(
    model: Any, pairs: Sequence[EncodedPair], pad: int, dtype: Dtype
) -> list[tuple[Tensor, Tensor]]:
    """Per-token log-probabilities (nats, float32) of chosen and of rejected, pair by pair."""
    rows = [row for pair in pairs for row in pair.rows()]
    found = each_row_logprobs(model, rows, pad, dtype)
    return list(zip(found[::2], found[1::2], strict=True))


def summed_pair_logprobs(
    model: Any, pairs: Sequence[EncodedPair], pad: int, dtype: Dtype, worker: Worker
) -> dict[str, tuple[float, float]]:
    """By pair id: the answers' log-probabilities (nats), each worker computing a share."""
    lengths = [pair.length for pair in pairs]
    share = shard(range(len(pairs)), lengths, worker.rank, worker.world)
    found = pair_logprobs(model, [pairs[at] for at in share], pad, dtype)
    sums = torch.zeros(len(pairs), 2, device=worker.device)
    for at, (chosen, rejected) in zip(share, found, strict=True):
        sums[at, 0], sums[at, 1] = chosen.sum(), rejected.sum()
    worker.sum_([sums])
    return {
        pair.id: (chosen, rejected)
        for pair, (chosen, rejected) in zip(pairs, sums.tolist(), strict=True)
    }
