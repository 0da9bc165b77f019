"""A reward model from preference pairs."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from orchestrator.artifacts.lineage import Lineage
from orchestrator.checks.models import check_chat
from orchestrator.checks.training import training_warnings
from orchestrator.jobs.job import Job, Makes
from orchestrator.jobs.training import train
from services.learner.jobs.settings import RewardModelSettings

if TYPE_CHECKING:
    from orchestrator.stages.context import StageContext


class RewardModel(RewardModelSettings, Job):
    """A scalar head on a policy, trained on pairs with the Bradley-Terry loss."""

    makes: ClassVar[Makes] = "reward model"

    job: Literal["reward_model"] = "reward_model"

    def check(self, lineage: Lineage) -> None:
        """The policy must read messages."""
        check_chat(self.policy, "policy")

    def warnings(self) -> Sequence[str]:
        """Of the warm-up."""
        return training_warnings(self.train, self.pairs)

    async def run(self, context: "StageContext") -> dict[str, float]:
        """Put a scalar head on the policy and train it; returns loss and held-out accuracy."""
        task = "services.learner.jobs.reward_model:train_reward_model"
        return await train(task, self, RewardModelSettings, context)
