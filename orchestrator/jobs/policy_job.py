"""What every job that makes a policy shares: it may be measured before and after.

    policy-evaluation   the policy that the job starts from, where there is one
    <job>               the job itself
    <job>-evaluation    what it made

Neither is part of the job's fingerprint: an evaluation added later reuses the trained model.
"""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import model_validator

from orchestrator.artifacts.inputs import policy_of
from orchestrator.jobs.evaluate import EVALUATION, EvaluationSettings, evaluation_of, place_of
from orchestrator.jobs.job import Job, Makes
from services.rollout.settings import EngineSettings
from services.settings import Operational


class PolicyJob(Job):
    """Base of the jobs that make a policy."""

    makes: ClassVar[Makes] = "policy"

    evaluate: Operational[EvaluationSettings | None] = None
    """What the policy is measured on before and after; a recipe has an `evaluate` of its own."""
    engine: Operational[EngineSettings | None] = None
    """For evaluation."""

    @model_validator(mode="after")
    def _engine_is_of_use(self) -> "PolicyJob":
        if self.engine is not None and self.evaluate is None and not self.engines():
            raise ValueError(
                "'engine' is for evaluation, and there is none; set `evaluate` too, or remove it"
            )
        return self

    def expand(self) -> Mapping[str, Job]:
        """The job, between two evaluations where it has `evaluate`."""
        if self.evaluate is None:
            return super().expand()
        policy = policy_of(self)
        stages: dict[str, Job] = {}
        if policy is not None:
            stages[f"policy{EVALUATION}"] = self._measured(self.evaluate, policy.value)
        stages[self.job] = self
        after = self._measured(self.evaluate, f"@{self.job}", measures=self.job)
        return stages | {f"{self.job}{EVALUATION}": after}

    def place(self, stage: str, key: str) -> str:
        """A key of the evaluations stands under `evaluate`."""
        return key if stage == self.job else place_of(key)

    def _measured(self, on: EvaluationSettings, policy: str, measures: str = "") -> Job:
        return evaluation_of(
            policy,
            on,
            self.engine or EngineSettings(),
            seed=self.seed,
            preferences_from=self.preference_prompts(),
            measures=measures,
        )
