"""DPO on a fixed preference set."""

import shutil
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from orchestrator.artifacts.lineage import Lineage, Parent, check_alignment
from orchestrator.artifacts.store import LEARNER
from orchestrator.checks.training import training_warnings
from orchestrator.jobs.policy_job import PolicyJob
from orchestrator.jobs.training import train
from services.learner.jobs.settings import REFERENCE, OfflineDPOSettings

if TYPE_CHECKING:
    from orchestrator.stages.context import StageContext


class OfflineDPO(OfflineDPOSettings, PolicyJob):
    """DPO on a fixed preference set, against a frozen reference."""

    aligns: ClassVar[bool] = True

    job: Literal["offline_dpo"] = "offline_dpo"

    def parents(self, lineage: Lineage) -> Mapping[str, Parent]:
        """Reference and base."""
        return lineage.alignment(self)

    def check(self, lineage: Lineage) -> None:
        """Policy, reference and base must be of one shape and one tokenizer."""
        check_alignment(self.policy, self.parents(lineage))

    def warnings(self) -> Sequence[str]:
        """Of the optimizer and the warm-up."""
        return training_warnings(self.train, self.pairs)

    async def run(self, context: "StageContext") -> dict[str, float]:
        """Train the policy against its frozen reference; returns the learner's metrics."""
        keep_known_reference(context)
        resolved = self.model_copy(update=context.parents)
        task = "services.learner.jobs.offline_dpo:train_offline_dpo"
        return await train(task, resolved, OfflineDPOSettings, context)


def keep_known_reference(context: "StageContext") -> None:
    """Give the job what the artifact in its place knows of a reference: made with another beta,
    say. What is of other pairs or of another reference is never found by it.
    """
    known = context.run.folder / context.stage / REFERENCE
    if known.is_dir():
        shutil.copytree(known, context.scratch / LEARNER / REFERENCE, dirs_exist_ok=True)
