"""Direct Preference Optimization (arXiv 2305.18290)."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from services.learner.settings import DPOSettings


@dataclass(frozen=True)
class DPOResult:
    """One value a pair, float32 [pairs]; all but `loss` are detached."""

    loss: Tensor
    chosen_reward: Tensor
    """beta * log(policy / reference) of the chosen answer."""
    rejected_reward: Tensor
    dpo_margin: Tensor
    """chosen_reward - rejected_reward; of implicit rewards, not of a reward's scores."""
    accuracy: Tensor
    """1 where dpo_margin is positive."""


def dpo_loss(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    settings: DPOSettings,
) -> DPOResult:
    """Sigmoid DPO (Eq. 7), with label smoothing as in conservative DPO.

    The arguments are summed log-probabilities of the answers in nats, float32 [pairs]. With
    h = beta * (log-ratio chosen - log-ratio rejected) and smoothing s the loss is
    -(1-s) log sigmoid(h) - s log sigmoid(-h).
    """
    chosen = settings.beta * (policy_chosen - reference_chosen)
    rejected = settings.beta * (policy_rejected - reference_rejected)
    margin = chosen - rejected
    smoothing = settings.label_smoothing
    loss = -(1.0 - smoothing) * F.logsigmoid(margin)
    if smoothing:
        loss = loss - smoothing * F.logsigmoid(-margin)
    return DPOResult(
        loss=loss,
        chosen_reward=chosen.detach(),
        rejected_reward=rejected.detach(),
        dpo_margin=margin.detach(),
        accuracy=(margin.detach() > 0).float(),
    )
