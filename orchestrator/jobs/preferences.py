"""Preference pairs from a policy's own answers, by any reward."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from orchestrator.artifacts.lineage import Lineage
from orchestrator.checks.sampling import (
    check_sampled_policy,
    check_sampling,
    sampling_warnings,
)
from orchestrator.jobs.job import Job, Makes
from services.data.settings import DataSource
from services.inputs import ModelPath, Rows
from services.pairs.settings import PairSettings
from services.reward.settings import RewardSettings
from services.rollout.settings import EngineSettings, SamplingSettings
from services.settings import Operational

if TYPE_CHECKING:
    from orchestrator.stages.context import StageContext


class Preferences(Job):
    """Sample answers from a policy, score them, write preference pairs."""

    makes: ClassVar[Makes] = "dataset"

    job: Literal["preferences"] = "preferences"
    policy: ModelPath
    """Whose answers are scored: folder, hub name or "@stage"."""
    prompts: Annotated[DataSource, Rows("prompts")]
    """What it answers."""
    reward: RewardSettings
    sampling: SamplingSettings = SamplingSettings()
    pairs: PairSettings = PairSettings()
    pairs_per_prompt: int = Field(1, ge=1)
    """1: best against worst. More: that many distinct pairs above the margin, drawn by seed."""
    heldout: float = Field(0.1, ge=0.0, lt=1.0)
    """Share of the prompts whose pairs go to heldout.jsonl instead of pairs.jsonl."""
    max_failed: Operational[float] = Field(0.1, ge=0.0, le=1.0)
    """Share of the prompts that may be lost to errors of the reward: above it, or when all are
    lost, the job fails; fewer are a warning."""
    engine: EngineSettings = EngineSettings()

    @model_validator(mode="after")
    def _samples_make_pairs(self) -> "Preferences":
        check_sampling(self.sampling, self.engine)
        return self

    def check(self, lineage: Lineage) -> None:
        """The policy must fit its engine, the prompts and the reward models the policy."""
        check_sampled_policy(
            self.policy, self.engine, self.sampling, self.reward, self.prompts, lineage
        )

    def warnings(self) -> Sequence[str]:
        """Of the prompts and reward functions."""
        return sampling_warnings(self.policy, self.engine, self.sampling, self.reward, self.prompts)

    def engines(self) -> Sequence[EngineSettings]:
        """One kind."""
        return [self.engine]

    def preference_prompts(self) -> Sequence[DataSource]:
        """All."""
        return [self.prompts]

    async def run(self, context: "StageContext") -> dict[str, float]:
        """Fill the artifact with pairs.jsonl and heldout.jsonl; returns counts, mean reward."""
        from orchestrator.jobs.preferences_run import make_preferences

        return await make_preferences(self, context)
