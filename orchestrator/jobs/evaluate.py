"""Measure a policy: checker accuracy by skill, sampled and greedy; held-out language-model loss."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from orchestrator.artifacts.lineage import Lineage
from orchestrator.checks.prompt_lengths import check_prompt_lengths, prompt_length_warnings
from orchestrator.checks.reward import check_answers
from orchestrator.checks.sampling import check_engine, no_room
from orchestrator.jobs.job import Job, Makes
from services.data.settings import DataSource
from services.errors import ConfigError
from services.inputs import ModelPath, Rows
from services.rollout.settings import EngineSettings
from services.settings import Operational, Settings
from services.telemetry.record.events import Evaluated

if TYPE_CHECKING:
    from orchestrator.stages.context import StageContext

RESULT = "evaluation.json"
EVALUATION = "-evaluation"
"""What the name of a policy's evaluation ends in."""


class EvaluationSettings(Settings):
    """What a policy is measured on."""

    prompts: Annotated[DataSource | None, Rows("prompts")] = None
    """With metadata "answer" or "pattern" for the checker."""
    texts: Annotated[DataSource | None, Rows("texts")] = None
    """For the held-out language-model loss."""
    samples: int = Field(4, ge=1)
    """Answers a prompt at temperature 1; one more is greedy."""
    max_tokens: int = Field(64, ge=1)
    """Longest answer, in tokens."""

    @model_validator(mode="after")
    def _measures_something(self) -> "EvaluationSettings":
        if self.prompts is None and self.texts is None:
            raise ValueError("there is nothing to measure on; set prompts, texts or both")
        return self


class Evaluate(Job):
    """Checker accuracy, sampled and greedy, by skill; held-out language-model loss."""

    makes: ClassVar[Makes] = "report"

    job: Literal["evaluate"] = "evaluate"
    policy: ModelPath
    """What is measured: folder, hub name or "@stage"."""
    evaluation: EvaluationSettings
    engine: EngineSettings = EngineSettings()
    preferences_from: Annotated[list[DataSource], Rows("prompts")] = []
    """What preference data is made from: skills that it holds are told apart in the results."""
    measures: Operational[str] = ""
    """The stage that made the policy: the numbers are shown with it. Whoever expands sets this."""

    def check(self, lineage: Lineage) -> None:
        """The policy must fit its engine, and every prompt name what is right."""
        if self.evaluation.prompts is None:
            return
        if wrong := no_room(self.evaluation.max_tokens, self.engine, "evaluation.max_tokens"):
            raise ConfigError(wrong)
        check_answers(self.evaluation.prompts)
        check_engine(self.policy, self.engine, lineage)
        first = lineage.first(self.policy)
        check_prompt_lengths(first, self.evaluation.prompts, self._room())

    def warnings(self) -> Sequence[str]:
        """Of prompts that are too long."""
        if self.evaluation.prompts is None:
            return []
        return prompt_length_warnings(self.policy, self.evaluation.prompts, self._room())

    def _room(self) -> int:
        return self.engine.max_model_len - self.evaluation.max_tokens

    def engines(self) -> Sequence[EngineSettings]:
        """One kind, where prompts are answered."""
        return [self.engine] if self.evaluation.prompts is not None else []

    async def run(self, context: "StageContext") -> dict[str, float]:
        """Measure, write evaluation.json into the artifact, report."""
        from orchestrator.jobs.evaluate_run import evaluate

        return await evaluate(self, context)

    def recall(self, folder: Path, context: "StageContext") -> None:
        """Report the measurement of the artifact."""
        text = (folder / RESULT).read_text(encoding="utf-8")
        found = Evaluated.model_validate_json(text)
        name = {"stage": context.stage, "policy": self.measures or self.policy}
        context.run.report(found.model_copy(update=name))


def evaluation_of(
    policy: str,
    on: EvaluationSettings,
    engine: EngineSettings,
    *,
    seed: int,
    preferences_from: Sequence[DataSource],
    measures: str = "",
) -> Evaluate:
    """The stage that measures a policy; `measures` names the stage that makes it in this run."""
    return Evaluate(
        policy=policy,
        evaluation=on,
        engine=engine,
        seed=seed,
        preferences_from=list(preferences_from),
        measures=measures,
    )


def place_of(key: str) -> str:
    """Where a job that is expanded to evaluations holds a key of theirs."""
    first, dot, rest = key.partition(".")
    return f"evaluate{dot}{rest}" if first == "evaluation" else key
