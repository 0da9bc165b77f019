"""The table of jobs: a line each. A job's module is imported when a config names it."""

import importlib
from typing import Annotated, Any

from pydantic import ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import PydanticCustomError

from orchestrator.jobs.job import Job

JOBS: dict[str, str] = {
    "demo_data": "orchestrator.jobs.demo_data:DemoData",
    "pretrain": "orchestrator.jobs.pretrain:Pretrain",
    "sft": "orchestrator.jobs.sft:SFT",
    "preferences": "orchestrator.jobs.preferences:Preferences",
    "reward_model": "orchestrator.jobs.reward_model:RewardModel",
    "offline_dpo": "orchestrator.jobs.offline_dpo:OfflineDPO",
    "online_dpo": "orchestrator.jobs.online_dpo:OnlineDPO",
    "replay_dpo": "orchestrator.jobs.replay_dpo:ReplayDPO",
    "evaluate": "orchestrator.jobs.evaluate:Evaluate",
    "recipe": "orchestrator.jobs.recipe:Recipe",
}
"""Import path of each job's class, by the name a config uses."""


def job_class(name: str) -> type[Job]:
    """The class of a job. KeyError for a name that is none."""
    module, cls = JOBS[name].split(":")
    found: type[Job] = getattr(importlib.import_module(module), cls)
    return found


def validated(data: Any) -> Job:
    """The job that a mapping describes. Raises ValidationError, or ValueError for its kind."""
    if isinstance(data, Job):
        return data
    kind = data.get("job") if isinstance(data, dict) else None
    if not isinstance(kind, str) or kind not in JOBS:
        raise PydanticCustomError(
            "unknown_job", "'job' must be one of {expected}", {"expected": ", ".join(JOBS)}
        )
    return job_class(kind).model_validate(data)


def _by_kind(data: Any, handler: ValidatorFunctionWrapHandler) -> Job:
    return validated(data)


Stage = Annotated[Job, WrapValidator(_by_kind)]
"""A job inside another's settings."""
