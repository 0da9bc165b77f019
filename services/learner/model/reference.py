"""Log-probabilities of pairs under a model that does not train."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from services.learner.model.policy import TokenLogProbs
from services.learner.train.batches import micro_batches, shard
from services.learner.train.distributed import Worker
from services.learner.train.encoding import EncodedPair

AnswerLogprobs = tuple[Tensor, Tensor]
"""Per-token log-probabilities of chosen and of rejected, nats, float32."""
_PASS_TOKENS = 1 << 12


def pair_logprobs(model: TokenLogProbs, pair: EncodedPair) -> AnswerLogprobs:
    """Of one pair, in a pass of its own: the same whatever else is known by then."""
    with torch.no_grad():
        chosen, rejected = model.logprobs([pair.group()]).by_suffix()
    return chosen, rejected


def share_of_logprobs(
    model: TokenLogProbs, pairs: Sequence[EncodedPair], worker: Worker
) -> dict[str, AnswerLogprobs]:
    """By pair id, this worker's share of them; the shares are the same for any model."""
    tokens = [pair.group().tokens for pair in pairs]
    found: dict[str, AnswerLogprobs] = {}
    share = shard(range(len(pairs)), tokens, worker.rank, worker.world)
    with torch.no_grad():
        for cut in micro_batches(share, tokens, _PASS_TOKENS):
            parts = model.logprobs([pairs[at].group() for at in cut]).by_suffix()
            for at, answers in zip(cut, zip(parts[::2], parts[1::2], strict=True), strict=True):
                found[pairs[at].id] = answers
    return found


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
    model: TokenLogProbs, pairs: Sequence[EncodedPair], worker: Worker
) -> dict[str, tuple[float, float]]:
    """By pair id: the answers' log-probabilities (nats), each worker computing a share."""
    return summed(pairs, share_of_logprobs(model, pairs, worker), worker)
