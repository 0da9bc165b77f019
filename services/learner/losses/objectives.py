"""What a training phase minimises: sums over examples, so that shards add up exactly.

An objective gives an example's length (tokens through the model), its weight (its part of the
normaliser) and, for some examples, the sum of their losses and of their metrics. A step's loss
is the sum over the whole batch divided by the batch's weight, however it was sharded; so is a
metric, under the name that the objective declares for it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from services.learner.losses.bradley_terry import bradley_terry_loss
from services.learner.losses.dpo import dpo_loss
from services.learner.model.forward import Dtype, masked_logprobs, padded, row_logprobs, scores
from services.learner.model.logprobs import summed_by_row
from services.learner.settings import DPOSettings
from services.learner.train.encoding import EncodedPair, EncodedText

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

    def length(self, example: Example) -> int:
        """Tokens of its longest row."""

    def tokens(self, example: Example) -> int:
        """Tokens of all its rows."""

    def weight(self, example: Example) -> float:
        """Its part of the normaliser."""

    def sums(self, examples: Sequence[Example]) -> tuple[Tensor, dict[str, Tensor]]:
        """Sum of losses (with gradient) and of metrics (without)."""


class LanguageModelling:
    """Cross-entropy of the learnt tokens, in nats; the weight is their count."""

    metrics: tuple[str, ...] = ()

    def __init__(self, model: Any, pad: int, dtype: Dtype) -> None:
        self._model, self._pad, self._dtype = model, pad, dtype

    def name(self, example: EncodedText) -> str:
        """Its id."""
        return example.id

    def length(self, example: EncodedText) -> int:
        """Tokens."""
        return example.length

    def tokens(self, example: EncodedText) -> int:
        """Tokens."""
        return example.length

    def weight(self, example: EncodedText) -> float:
        """Learnt tokens."""
        return float(example.learnt)

    def sums(self, examples: Sequence[EncodedText]) -> tuple[Tensor, dict[str, Tensor]]:
        """Summed cross-entropy; no metrics beside it."""
        device = next(self._model.parameters()).device
        ids = padded([example.ids for example in examples], self._pad, device)
        learnt = padded([example.mask for example in examples], 0, device)[:, 1:].bool()
        return -masked_logprobs(self._model, ids, learnt, self._dtype).sum(), {}


class _Pairs:
    """What objectives over pairs share: each pair weighs 1."""

    def name(self, example: EncodedPair) -> str:
        """Its id."""
        return example.id

    def length(self, example: EncodedPair) -> int:
        """Tokens of the longer row."""
        return example.length

    def tokens(self, example: EncodedPair) -> int:
        """Tokens of both rows."""
        return 2 * len(example.prompt) + len(example.chosen) + len(example.rejected)

    def weight(self, example: EncodedPair) -> float:
        """1."""
        return 1.0


class DirectPreference(_Pairs):
    """DPO against reference log-probabilities that were computed beforehand.

    Metrics, means over pairs: accuracy (share of pairs with a positive dpo_margin), chosen_reward
    and rejected_reward (implicit rewards, nats times beta) and dpo_margin, their difference.
    """

    metrics = ("accuracy", "dpo_margin", "chosen_reward", "rejected_reward")

    def __init__(
        self,
        model: Any,
        pad: int,
        dtype: Dtype,
        settings: DPOSettings,
        reference: ReferenceLogprobs,
    ) -> None:
        self._model, self._pad, self._dtype = model, pad, dtype
        self._settings, self._reference = settings, reference

    def sums(self, examples: Sequence[EncodedPair]) -> tuple[Tensor, dict[str, Tensor]]:
        """Summed loss and metrics."""
        both = [example.rows() for example in examples]
        rows = [chosen for chosen, _ in both] + [rejected for _, rejected in both]
        logprobs, row_of = row_logprobs(self._model, rows, self._pad, self._dtype)
        chosen, rejected = summed_by_row(logprobs, row_of, len(rows)).chunk(2)
        reference = torch.tensor(
            [self._reference[example.id] for example in examples], device=chosen.device
        )
        result = dpo_loss(chosen, rejected, reference[:, 0], reference[:, 1], self._settings)
        return result.loss.sum(), {
            "accuracy": result.accuracy.sum(),
            "dpo_margin": result.dpo_margin.sum(),
            "chosen_reward": result.chosen_reward.sum(),
            "rejected_reward": result.rejected_reward.sum(),
        }


class RewardModelling(_Pairs):
    """Bradley-Terry on a scalar head.

    Metrics, means over pairs: accuracy (share of pairs with a positive margin) and margin, the
    score of chosen minus that of rejected.
    """

    metrics = ("accuracy", "margin")

    def __init__(self, model: Any, pad: int, dtype: Dtype) -> None:
        self._model, self._pad, self._dtype = model, pad, dtype

    def sums(self, examples: Sequence[EncodedPair]) -> tuple[Tensor, dict[str, Tensor]]:
        """Summed loss and metrics."""
        both = [example.rows() for example in examples]
        rows = [row for (row, _), _ in both] + [row for _, (row, _) in both]
        chosen, rejected = scores(self._model, rows, self._pad, self._dtype).chunk(2)
        margin = (chosen - rejected).detach()
        return bradley_terry_loss(chosen, rejected).sum(), {
            "accuracy": (margin > 0).float().sum(),
            "margin": margin.sum(),
        }
