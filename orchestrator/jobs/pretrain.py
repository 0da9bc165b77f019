"""Tokenizer and base model from texts."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from orchestrator.checks.training import context_warnings, training_warnings
from orchestrator.jobs.policy_job import PolicyJob
from services.data.settings import FilterSettings
from services.learner.jobs.settings import PretrainSettings
from services.learner.model.shape import ModelShape

if TYPE_CHECKING:
    from orchestrator.stages.context import StageContext


class Pretrain(PretrainSettings, PolicyJob):
    """Tokenizer and base model from texts."""

    job: Literal["pretrain"] = "pretrain"
    filters: FilterSettings = FilterSettings()

    def new_shape(self) -> ModelShape:
        """Of the model it makes, as it ends."""
        longer = self.context_extension
        if longer is None:
            return self.model
        positions = round(longer.yarn_factor * longer.sequence_length)
        changed = {"max_positions": positions, "rope_theta": longer.rope_theta}
        return self.model.model_copy(update=changed)

    def warnings(self) -> Sequence[str]:
        """Of the warm-up and the RoPE base."""
        return [*training_warnings(self.train), *context_warnings(self.context_extension)]

    async def run(self, context: "StageContext") -> dict[str, float]:
        """Clean the texts, train the tokenizer unless one is given, train the model."""
        from orchestrator.jobs.pretrain_run import pretrain

        return await pretrain(self, context)
