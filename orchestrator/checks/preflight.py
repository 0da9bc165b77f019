"""Checks that need no cluster: every file, model folder, port and address a job names.

They run before any heavy import, and raise the first error as one line.
"""

import os
from pathlib import Path
from typing import Literal

from orchestrator.artifacts.lineage import (
    base_of,
    check_model_folder,
    check_same_shapes,
    check_same_tokenizer,
    is_hub_name,
    reference_of,
    reward_models,
)
from orchestrator.checks.addresses import check_addresses
from orchestrator.checks.memory import check_kv_cache
from orchestrator.checks.reward import check_answers, check_function
from orchestrator.config.settings import (
    EvaluateJob,
    EvaluationSettings,
    Job,
    OnlineDPOJob,
    PreferencesJob,
    PretrainJob,
    RecipeJob,
    Stage,
)
from services.data.settings import DataSource
from services.errors import ConfigError
from services.reward.settings import CheckerReward, FunctionReward
from services.rollout.vllm.fit import check_fit, check_head_size

Kind = Literal["texts", "conversations", "prompts", "pairs"]

_KINDS: dict[str, Kind] = {
    "texts": "texts",
    "demonstrations": "conversations",
    "prompts": "prompts",
    "pairs": "pairs",
}


def check(job: Job, *, addresses: bool = True) -> None:
    """Raise the first error of a job whose inputs are not as they must be.

    With `addresses`, also when a port is taken, or Redis or Ray does not answer.
    """
    stages = list(stages_of(job).items())
    made: list[str] = []
    for key, stage in stages:
        _check_references(key, stage, made)
        if not _mentions_stage(stage):
            check_inputs(stage)
        made.append(key)
    evaluation = job.evaluate if isinstance(job, RecipeJob) else getattr(job, "evaluation", None)
    if evaluation is not None:
        _check_evaluation(evaluation, made)
    if isinstance(job, EvaluateJob):
        check_model_folder(job.policy, "policy")
        check_fit(job.policy, job.engine)
    if isinstance(job, RecipeJob) and job.evaluate and not job.engine.num_gpus:
        for key, stage in stages:
            if isinstance(stage, PretrainJob):
                shape = stage.model
                check_head_size(f"'stages.{key}.model'", shape.hidden_size // shape.heads)
    if addresses:
        check_addresses(job, list(stages_of(job).values()))
        if not (job.ray.address or os.environ.get("RAY_ADDRESS")):
            check_kv_cache(
                each.engine for each in (job, *stages_of(job).values()) if hasattr(each, "engine")
            )


def stages_of(job: Job) -> dict[str, Stage]:
    """A recipe's stages; another job is a recipe of itself."""
    if isinstance(job, RecipeJob):
        return job.stages
    return {} if isinstance(job, EvaluateJob) else {job.job: job}


def check_inputs(stage: Stage) -> None:
    """The models and data of one stage whose "@" references are resolved."""
    roles = {name: getattr(stage, name, None) for name in ("policy", "reference", "base")}
    for role, path in roles.items():
        if path is not None:
            check_model_folder(path, role)
    for part in reward_models(stage):
        check_model_folder(part.path, "reward.parts.path")
        check_same_tokenizer(roles["policy"] or "", part.path, "reward.parts.path")
    if stage.job in ("offline_dpo", "online_dpo"):
        reference, base = reference_of(stage), base_of(stage)
        check_same_tokenizer(stage.policy, reference, "reference")
        check_same_shapes(stage.policy, reference)
        if base is not None:
            check_model_folder(base, "base")
            check_same_shapes(reference, base)
    if stage.job == "pretrain" and isinstance(stage.tokenizer, str):
        _check_tokenizer(stage.tokenizer)
    for role, kind in _KINDS.items():
        _check_source(getattr(stage, role, None), kind)
    if isinstance(stage, PreferencesJob | OnlineDPOJob):
        check_fit(stage.policy, stage.engine)
        for term in stage.reward.parts:
            if isinstance(term, CheckerReward):
                check_answers(stage.prompts)
            elif isinstance(term, FunctionReward):
                check_function(term.path)
    heldout = getattr(stage, "heldout", None)
    if isinstance(heldout, DataSource):
        _check_source(heldout, "texts" if stage.job == "pretrain" else "pairs")


def _check_tokenizer(path: str) -> None:
    if not is_hub_name(path) and not (Path(path) / "tokenizer.json").is_file():
        raise ConfigError(f"'tokenizer': {path} is no tokenizer folder: it has no tokenizer.json")


def _check_source(source: object, kind: Kind) -> None:
    if isinstance(source, DataSource):
        from services.data.rows import check_rows

        check_rows(source, kind)


def _check_evaluation(evaluation: EvaluationSettings, made: list[str]) -> None:
    for role, source in (("prompts", evaluation.prompts), ("texts", evaluation.texts)):
        if source is not None and source.path.startswith("@"):
            _known(source.path, made, f"evaluate.{role}.path")
        else:
            _check_source(source, _KINDS[role])
            if source is not None and role == "prompts":
                check_answers(source)


def _references(stage: Stage) -> list[str]:
    def walk(value: object) -> list[str]:
        if isinstance(value, dict):
            return [found for inner in value.values() for found in walk(inner)]
        if isinstance(value, list):
            return [found for inner in value for found in walk(inner)]
        return [value] if isinstance(value, str) and value.startswith("@") else []

    return walk(stage.model_dump())


def _mentions_stage(stage: Stage) -> bool:
    return bool(_references(stage))


def _check_references(key: str, stage: Stage, made: list[str]) -> None:
    for reference in _references(stage):
        _known(reference, made, f"stages.{key}")


def _known(reference: str, made: list[str], key: str) -> None:
    name = reference[1:].split("/")[0]
    if name not in made:
        earlier = ", ".join(made) or "none"
        raise ConfigError(f"'{key}': '{reference}' names no earlier stage (earlier: {earlier})")
