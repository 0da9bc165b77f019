"""Jobs in order, each on what the ones before it made."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, SerializeAsAny, model_validator

from orchestrator.jobs.evaluate import EVALUATION, EvaluationSettings, evaluation_of, place_of
from orchestrator.jobs.job import Job, Makes
from orchestrator.jobs.policy_job import PolicyJob
from orchestrator.jobs.registry import Stage
from services.rollout.settings import EngineSettings

_OF_THE_RUN = ("metrics", "admin", "trackers", "log", "tracing")
"""Keys of every job that a stage of a recipe has no use for."""


class Recipe(Job):
    """Jobs in order. "@name" in a stage is the folder of an earlier one."""

    makes: ClassVar[Makes] = "report"

    job: Literal["recipe"] = "recipe"
    stages: dict[str, SerializeAsAny[Stage]] = Field(min_length=1)
    """Jobs by name, in order; each has the keys of its job."""
    evaluate: EvaluationSettings | None = None
    """Every stage that makes a policy is followed by one that evaluates it."""
    engine: EngineSettings = EngineSettings()
    """For evaluation."""

    @model_validator(mode="after")
    def _stages_are_plain_jobs(self) -> "Recipe":
        for key, stage in self.stages.items():
            if stage.name not in ("", key):
                raise ValueError(f"stages.{key}.name: a stage is named by its key; remove it")
            for whole in _OF_THE_RUN:
                # By value: a config that was written out has every key.
                if getattr(stage, whole) != type(stage).model_fields[whole].default:
                    raise ValueError(
                        f"stages.{key}.{whole}: it concerns a whole run; set `{whole}` of the"
                        " recipe, and remove this one"
                    )
            if isinstance(stage, Recipe):
                raise ValueError(f"stages.{key}.job: a recipe inside a recipe; write its stages")
            if isinstance(stage, PolicyJob) and stage.evaluate is not None:
                raise ValueError(
                    f"stages.{key}.evaluate: a recipe measures every policy it makes; set"
                    " `evaluate` of the recipe, and remove this one"
                )
            if self.evaluate is not None and f"{key}{EVALUATION}" in self.stages:
                raise ValueError(
                    f"stages.{key}{EVALUATION}: the name of {key}'s evaluation; take another"
                )
            if not key or not key.replace("_", "").replace("-", "").isalnum():
                raise ValueError(f"stages.{key}: name a stage with letters, digits, - and _")
        return self

    def expand(self) -> Mapping[str, Job]:
        """The stages under the run's seed, each policy followed by its evaluation."""
        sources = [source for job in self.stages.values() for source in job.preference_prompts()]
        stages: dict[str, Job] = {}
        for key, job in self.stages.items():
            stages[key] = with_seed(job, self.seed)
            if self.evaluate is not None and job.makes == "policy":
                stages[f"{key}{EVALUATION}"] = evaluation_of(
                    f"@{key}",
                    self.evaluate,
                    self.engine,
                    seed=self.seed,
                    preferences_from=sources,
                    measures=key,
                )
        return stages

    def place(self, stage: str, key: str) -> str:
        """A stage's keys stand below its name, those of the evaluations under `evaluate`."""
        return f"stages.{stage}.{key}" if stage in self.stages else place_of(key)


def with_seed(job: Job, seed: int) -> Job:
    """The job under the run's seed, unless it has one of its own."""
    return job if "seed" in job.model_fields_set else job.model_copy(update={"seed": seed})
