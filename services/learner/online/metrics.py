"""What is measured of an episode beside its loss."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from pairloop.data.v1.pair_pb2 import PreferencePair
from pairloop.data.v1.rollout_pb2 import Sample
from services.learner.model.reference import AnswerLogprobs
from services.learner.train.distributed import Worker


def divergence(
    pairs: Sequence[PreferencePair], reference: Mapping[str, AnswerLogprobs], worker: Worker
) -> dict[str, float]:
    """The metric "kl", in nats an answer; `reference` holds this worker's share of the pairs.

    The mean over both answers of all pairs of sum_t [exp(d_t) - 1 - d_t], with
    d_t = log ref(y_t) - log pi(y_t) and pi the policy that sampled the answer, by the sampler's
    record: an estimate of KL(pi || ref) that is never negative (Schulman's k3). It stands for all
    samples as well as chosen and rejected do; they are the best and the worst of each group. No
    entry when no answer has a record.

    The learner's own policy would be the wrong one for stale samples: exp(d_t) has no bound where
    it has moved away from what it once sampled.
    """
    terms = [
        _k3(torch.tensor(list(sample.logprobs), dtype=base.dtype), base)
        for pair in pairs
        if pair.id in reference
        for sample, base in zip((pair.chosen, pair.rejected), reference[pair.id], strict=True)
        if len(sample.logprobs) == len(base)
    ]
    total, count = worker.all_reduce_values([sum(terms), len(terms)])
    return {"kl": total / count} if count else {}


def sampler_gap(
    pairs: Sequence[PreferencePair],
    policy: Mapping[str, AnswerLogprobs],
    version: int,
    worker: Worker,
) -> dict[str, float]:
    """sampler_gap and sampler_gap_mean: |sampler's - learner's log-probability| of a token, nats.

    The largest and the mean over the answers sampled from exactly the weights the learner held
    (`version`); no entry when there is none. `policy` holds what went through this worker in the
    episode's first step, when the weights were still those.
    """
    gaps = [
        np.abs(np.asarray(sample.logprobs, dtype=np.float32) - logprobs.numpy())
        for pair in pairs
        if pair.id in policy
        for sample, logprobs in zip((pair.chosen, pair.rejected), policy[pair.id], strict=True)
        if _sampled_from(sample, version) and len(sample.logprobs) == len(logprobs)
    ]
    every = np.concatenate([np.zeros(0, dtype=np.float32), *gaps])
    total, count = worker.all_reduce_values([float(every.sum(dtype=np.float64)), every.size])
    largest = worker.all_reduce_max(float(every.max(initial=0.0)))
    return {"sampler_gap": largest, "sampler_gap_mean": total / count} if count else {}


def _k3(policy: Tensor, reference: Tensor) -> float:
    gap = reference - policy
    return float(torch.expm1(gap).sub(gap).sum())


def _sampled_from(sample: Sample, version: int) -> bool:
    return bool(sample.policy_versions) and all(
        span.version == version for span in sample.policy_versions
    )
