"""What stages take of GPUs and of the disk, before anything starts: counts and estimates."""

from collections.abc import Mapping

from orchestrator.checks.model_sizes import Sizes, UnknownSizeError
from orchestrator.jobs.job import Job
from services.learner.settings import TrainSettings
from services.reward.settings import RewardSettings
from services.settings import fields_of

_WEIGHTS = 4
_MOMENTS = {"float32": 8, "int8": 2}
"""Bytes a parameter, on disk."""
_CHECKPOINTS = 3
"""Two are kept, and one is being written (services/learner/train/checkpoint.py)."""


def gpus_needed(stage: Job) -> float:
    """GPUs that a stage reserves at once; parts of one count as such."""
    needed = sum(engine.workers * engine.num_gpus for engine in stage.engines())
    for _, _, value in fields_of(stage):
        if isinstance(value, TrainSettings):
            needed += value.workers * value.num_gpus
        elif isinstance(value, RewardSettings):
            needed += value.replicas * value.num_gpus
    return needed


def disk_bytes(stages: Mapping[str, Job]) -> int:
    """About what checkpoints and models take at most: each stage leaves a model, and one at a time
    has checkpoints. A model whose size is not known counts nothing.
    """
    sizes = Sizes(stages)
    models = checkpoints = 0
    for stage in stages.values():
        train = next((v for _, _, v in fields_of(stage) if isinstance(v, TrainSettings)), None)
        if train is None:
            continue
        try:
            parameters = sizes.started_from(stage).parameters
        except UnknownSizeError:
            continue
        models += _WEIGHTS * parameters
        each = (_WEIGHTS + _MOMENTS[train.optimizer.moments]) * parameters
        checkpoints = max(checkpoints, _CHECKPOINTS * each)
    return models + checkpoints
