"""What a training phase minimises: sums over examples, so that shards add up exactly.

An objective gives an example's length (tokens through the model), its weight (its part of the
normaliser) and, for some examples, the sum of their losses and of their metrics. A step's loss
is the sum over the whole batch divided by the batch's weight, however it was sharded; so is a
metric, under the name that the objective declares for it.
"""

from collections.abc import Mapping, Sequence
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from services.learner.losses.bradley_terry import bradley_terry_loss
from services.learner.losses.dpo import dpo_loss
from services.learner.model.policy import ScoreModel, TokenLogProbs
from services.learner.model.reference import AnswerLogprobs
from services.learner.settings import DPOSettings
from services.learner.train.encoding import EncodedPair, Text

Example = TypeVar("Example", contravariant=True)
ReferenceLogprobs = Mapping[str, tuple[float, float]]
"""By pair id: summed log-probabilities of chosen and rejected under the frozen reference."""


class Objective(Protocol, Generic[Example]):
    """A loss over examples of one kind."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that `sums` returns, all of them each time; "loss" is none."""

    def name(self, example: Example) -> str:
        """What an error calls it."""

    def tokens(self, example: Example) -> int:
        """Tokens through the model."""

    def weight(self, example: Example) -> float:
        """Its part of the normaliser."""

    def sums(self, examples: Sequence[Example]) -> tuple[Tensor, dict[str, Tensor]]:
        """Sum of losses (with gradient) and of metrics (without)."""


class LanguageModelling:
    """Cross-entropy of the learnt tokens, in nats; the weight is their count."""

    metrics: tuple[str, ...] = ()

    def __init__(self, policy: TokenLogProbs) -> None:
        self._policy = policy

    def name(self, example: Text) -> str:
        """Its id."""
        return example.id

    def tokens(self, example: Text) -> int:
        """Tokens."""
        return example.length

    def weight(self, example: Text) -> float:
        """Learnt tokens."""
        return float(example.learnt)

    def sums(self, examples: Sequence[Text]) -> tuple[Tensor, dict[str, Tensor]]:
        """Summed cross-entropy; no metrics beside it."""
        groups = [group for example in examples for group in example.groups()]
        return -self._policy.logprobs(groups).values.sum(), {}


class _Pairs:
    """What objectives over pairs share: each pair weighs 1."""

    def name(self, example: EncodedPair) -> str:
        """Its id."""
        return example.id

    def tokens(self, example: EncodedPair) -> int:
        """Tokens of the prompt, once, and of both answers."""
        return example.group().tokens

    def weight(self, example: EncodedPair) -> float:
        """1."""
        return 1.0


class DirectPreference(_Pairs):
    """DPO against reference log-probabilities that were computed beforehand.

    Metrics, means over pairs: accuracy (share of pairs with a positive dpo_margin), chosen_reward
    and rejected_reward (implicit rewards, nats times beta), dpo_margin, their difference, and
    chosen_drift and rejected_drift: how far the answer's log-probability is above the reference's,
    nats.
    """

    metrics = (
        "accuracy",
        "dpo_margin",
        "chosen_reward",
        "rejected_reward",
        "chosen_drift",
        "rejected_drift",
    )

    def __init__(
        self, policy: TokenLogProbs, settings: DPOSettings, reference: ReferenceLogprobs
    ) -> None:
        self._policy, self._settings, self._reference = policy, settings, reference
        self.seen: dict[str, AnswerLogprobs] | None = None
        """While it is a dict: per-token log-probabilities of what goes through, by pair id."""

    def sums(self, examples: Sequence[EncodedPair]) -> tuple[Tensor, dict[str, Tensor]]:
        """Summed loss and metrics."""
        found = self._policy.logprobs([example.group() for example in examples])
        if self.seen is not None:
            parts = found.by_suffix()
            answers = zip(parts[::2], parts[1::2], strict=True)
            self.seen |= zip((example.id for example in examples), answers, strict=True)
        chosen, rejected = found.summed().view(-1, 2).unbind(1)
        reference = torch.tensor(
            [self._reference[example.id] for example in examples], device=chosen.device
        )
        result = dpo_loss(chosen, rejected, reference[:, 0], reference[:, 1], self._settings)
        return result.loss.sum(), {
            "accuracy": result.accuracy.sum(),
            "dpo_margin": result.dpo_margin.sum(),
            "chosen_reward": result.chosen_reward.sum(),
            "rejected_reward": result.rejected_reward.sum(),
            "chosen_drift": (chosen.detach() - reference[:, 0]).sum(),
            "rejected_drift": (rejected.detach() - reference[:, 1]).sum(),
        }


class RewardModelling(_Pairs):
    """Bradley-Terry on a scalar head.

    Metrics, means over pairs: accuracy (share of pairs with a positive margin) and margin, the
    score of chosen minus that of rejected.
    """

    metrics = ("accuracy", "margin")

    def __init__(self, model: ScoreModel) -> None:
        self._model = model

    def sums(self, examples: Sequence[EncodedPair]) -> tuple[Tensor, dict[str, Tensor]]:
        """Summed loss and metrics."""
        scores = self._model.scores([example.group() for example in examples])
        chosen, rejected = scores.view(-1, 2).unbind(1)
        margin = (chosen - rejected).detach()
        return bradley_terry_loss(chosen, rejected).sum(), {
            "accuracy": (margin > 0).float().sum(),
            "margin": margin.sum(),
        }
