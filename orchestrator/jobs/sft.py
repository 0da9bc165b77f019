"""Supervised fine-tuning of a base model on dialogues."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from orchestrator.artifacts.lineage import Lineage
from orchestrator.checks.models import check_chat
from orchestrator.checks.training import training_warnings
from orchestrator.jobs.policy_job import PolicyJob
from orchestrator.jobs.training import train
from services.learner.jobs.settings import SFTSettings

if TYPE_CHECKING:
    from orchestrator.stages.context import StageContext


class SFT(SFTSettings, PolicyJob):
    """Supervised fine-tuning on messages; the loss is on the assistant's tokens alone."""

    job: Literal["sft"] = "sft"

    def check(self, lineage: Lineage) -> None:
        """The policy must read messages."""
        check_chat(self.policy, "policy")

    def warnings(self) -> Sequence[str]:
        """Of the warm-up."""
        return training_warnings(self.train, self.demonstrations)

    async def run(self, context: "StageContext") -> dict[str, float]:
        """Train on the assistant's tokens; returns the learner's metrics."""
        return await train("services.learner.jobs.lm:train_sft", self, SFTSettings, context)
