"""What a run will take of memory, stage by stage, before anything starts.

Each service says what one of its processes holds (services/*/memory.py); here they are put beside
each other as a stage runs them. Stages do not overlap, but CPU engines stay from one to the next
(orchestrator/stages/engines.py).
"""

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.artifacts.lineage import Lineage
from orchestrator.checks.model_sizes import Sizes, UnknownSizeError
from orchestrator.jobs.job import Job
from services.learner.memory import Training, learner_memory
from services.learner.settings import TrainSettings
from services.memory_plan import GIB, WIDTHS, Part, ProcessMemory, at_once
from services.model_size import ModelSize
from services.queues.memory import redis_bytes
from services.queues.settings import QueueSettings
from services.reward.memory import reward_memory
from services.reward.settings import ModelReward, RewardSettings
from services.rollout.memory import engine_memory
from services.rollout.settings import EngineSettings
from services.settings import fields_of

ORDER = ("learner", "engine", "snapshot", "reward", "the rest")
"""Of the processes, wherever they are listed."""
_WEIGHTS = "snapshot"

_RAY = Part("driver, Ray's servers and idle workers", int(0.95 * GIB))
_SERVE = Part("Serve's controller, pairing, version store", int(0.25 * GIB))
_CONTROLLER = Part("Ray Train's controller", int(0.13 * GIB))
"""Measured with a model of 4M parameters (docs/memory.md)."""
_TOKEN = 16
"""Bytes of a token in a rollout, about: id, log-probability, text."""


@dataclass(frozen=True)
class StageMemory:
    """One stage at its fullest moment."""

    key: str
    processes: tuple[ProcessMemory, ...]
    unknown: str = ""
    """The model whose size is not known before it is fetched; there is no plan then."""
    redis: str = ""
    """What Redis holds of it, wherever that runs."""

    @property
    def host(self) -> int:
        """Bytes of host memory, as they are measured."""
        return at_once(self.processes)

    @property
    def needed(self) -> int:
        """Bytes of host memory that the stage cannot do without."""
        return at_once(self.processes, without_files=True)


def plan_memory(stages: Mapping[str, Job], done: Collection[str] = ()) -> list[StageMemory]:
    """Of every stage that trains or samples and is not `done`, in order."""
    sizes = Sizes(stages)
    found: list[StageMemory] = []
    alive: tuple[EngineSettings, ModelSize] | None = None
    for key, stage in stages.items():
        if key in done or not (_train(stage) or stage.engines()):
            continue
        try:
            if stage.engines():
                alive = (stage.engines()[0], sizes.of(_policy(stage)))
            elif (train := _train(stage)) and train.num_gpus:
                alive = None  # they would hold the GPUs
            engines = [engine_memory(alive[1], alive[0])] if alive else []
            processes = [*_others(stage, sizes), *engines, _rest(stage)]
            processes.sort(key=lambda process: ORDER.index(process.name))
            found.append(StageMemory(key, tuple(processes), redis=_redis_text(stage)))
        except UnknownSizeError as error:
            alive = None
            found.append(StageMemory(key, (), str(error)))
    return found


def object_store_bytes(stages: Mapping[str, Job]) -> int:
    """Bytes of shared memory for the weights on their way to the engines; 0: none are."""
    needed = [
        part.bytes
        for stage in plan_memory(stages)
        for process in stage.processes
        if process.name == _WEIGHTS
        for part in process.parts
    ]
    return max(needed, default=0)


def _others(stage: Job, sizes: Sizes) -> Iterator[ProcessMemory]:
    """Learner, reward, and the snapshot between learner and engines."""
    if train := _train(stage):
        policy = sizes.started_from(stage)
        yield learner_memory(policy, train, _training(stage, train, sizes))
        if stage.engines():
            width = WIDTHS[stage.engines()[0].dtype]
            # One snapshot; what a tensor takes the place of is gone a moment later.
            snapshot = width * policy.parameters * 3 // 2
            lower = "engine.dtype=bfloat16" if width == 4 else ""
            part = Part("weights on their way to the engines", snapshot, lower)
            yield ProcessMemory(_WEIGHTS, (part,))
    for _, _, value in fields_of(stage):
        if isinstance(value, RewardSettings):
            models = [part for part in value.parts if isinstance(part, ModelReward)]
            yield reward_memory(value, [(part, sizes.of(part.path)) for part in models])


def _rest(stage: Job) -> ProcessMemory:
    parts = [_RAY]
    parts += [_CONTROLLER] if _train(stage) else []
    if queues := stage.redis():
        parts += [_SERVE]
        if not queues.configured_url:
            parts += [Part("Redis", _redis(stage, queues), "queues.inline_bytes")]
    return ProcessMemory("the rest", tuple(parts))


def _redis_text(stage: Job) -> str:
    queues = stage.redis()
    if queues is None:
        return ""
    how = "at most" if queues.payloads == "folder" else "with every payload about"
    return f"{how} {math.ceil(_redis(stage, queues) / 2**20):,} MiB"


def _redis(stage: Job, queues: QueueSettings) -> int:
    values: dict[str, Any] = {name: value for name, _, value in fields_of(stage)}
    sampling, engine = values["sampling"], values["engine"]
    tokens = sampling.n * sampling.max_tokens + engine.max_model_len
    return redis_bytes(queues, values["episodes"], _TOKEN * tokens)


def _training(stage: Job, train: TrainSettings, sizes: Sizes) -> Training:
    values: dict[str, Any] = {name: value for name, _, value in fields_of(stage)}
    if "sequence_length" in values:
        phases = [
            values["sequence_length"],
            getattr(values["context_extension"], "sequence_length", 0),
        ]
        return Training(max(phases), always=True)
    if "dpo" not in values:
        pairs = 2 if "pairs" in values else 1
        return Training(pairs * train.max_length)
    reference = Lineage(sizes.stages).reference(values["policy"], values["reference"])
    # A prompt and two answers that follow it.
    answer = min(train.max_length, getattr(values.get("sampling"), "max_tokens", train.max_length))
    return Training(train.max_length + answer, sizes.stored_width(reference))


def _train(stage: Job) -> TrainSettings | None:
    found = getattr(stage, "train", None)
    return found if isinstance(found, TrainSettings) else None


def _policy(stage: Job) -> str:
    return str(getattr(stage, "policy", ""))
