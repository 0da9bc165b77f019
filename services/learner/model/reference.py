"""Summed log-probabilities of pairs under a model that does not train: computed once, up front."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from services.learner.model.forward import Dtype, each_row_logprobs
from services.learner.train.batches import shard
from services.learner.train.distributed import Worker
from services.learner.train.encoding import EncodedPair

AnswerLogprobs = tuple[Tensor, Tensor]
"""Per-token log-probabilities of chosen and of rejected, nats, float32."""


def pair_logprobs(
    model: Any, pairs: Sequence[EncodedPair], pad: int, dtype: Dtype
) -> list[AnswerLogprobs]:
    """Per-token log-probabilities (nats, float32) of chosen and of rejected, pair by pair."""
    rows = [row for pair in pairs for row in pair.rows()]
    found = each_row_logprobs(model, rows, pad, dtype)
    return list(zip(found[::2], found[1::2], strict=True))


def share_of_logprobs(
    model: Any, pairs: Sequence[EncodedPair], pad: int, dtype: Dtype, worker: Worker
) -> dict[str, AnswerLogprobs]:
    """`pair_logprobs` by pair id, of this worker's share; the shares are the same for any model."""
    lengths = [pair.length for pair in pairs]
    mine = [pairs[at] for at in shard(range(len(pairs)), lengths, worker.rank, worker.world)]
    found = pair_logprobs(model, mine, pad, dtype)
    return {pair.id: logprobs for pair, logprobs in zip(mine, found, strict=True)}


def summed(
    pairs: Sequence[EncodedPair], share: Mapping[str, AnswerLogprobs], worker: Worker
) -> dict[str, tuple[float, float]]:
    """By pair id, over every worker's share: the answers' log-probabilities, nats."""
    sums = torch.zeros(len(pairs), 2, device=worker.device)
    for at, pair in enumerate(pairs):
        if pair.id in share:
            chosen, rejected = share[pair.id]
            sums[at, 0], sums[at, 1] = chosen.sum(), rejected.sum()
    worker.all_reduce_([sums])
    return {
        pair.id: (chosen, rejected)
        for pair, (chosen, rejected) in zip(pairs, sums.tolist(), strict=True)
    }


def summed_pair_logprobs(
    model: Any, pairs: Sequence[EncodedPair], pad: int, dtype: Dtype, worker: Worker
) -> dict[str, tuple[float, float]]:
    """By pair id: the answers' log-probabilities (nats), each worker computing a share."""
    return summed(pairs, share_of_logprobs(model, pairs, pad, dtype, worker), worker)
