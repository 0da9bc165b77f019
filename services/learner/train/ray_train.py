"""Ray Train, the one place that touches it: a training function on a group of workers.

`fit` blocks and may be called from any thread but the main one (there Ray Train would take over
Ctrl-C); `background.start` gives a future, for what runs beside an asyncio loop.
"""

import functools
import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray.train
from ray.exceptions import RayActorError
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import (
    PlacementGroupCleanerCallback,
)
from ray.train.v2._internal.exceptions import (
    WorkerGroupStartupFailedError,
    WorkerHealthCheckFailedError,
    WorkerHealthCheckTimeoutError,
)
from ray.train.v2._internal.execution.callback import RayTrainCallback
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2.api.config import LoggingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError, WorkerGroupError

from services.allocator import keep_freed_memory
from services.errors import PairloopError, ResourceError, WorkerDiedError, WorkerError, one_line
from services.imports import heavy_imports
from services.learner.settings import TrainSettings
from services.ray_errors import GO_ON, unwrapped


class _Workers(FixedScalingPolicy):  # type: ignore[misc]
    """As many workers as asked for, without the actor that tells an autoscaler in advance.

    The placement group of the workers tells it as well, when there is one.
    """

    def after_controller_start(self, train_run_context: Any) -> None:
        """Announce nothing."""

    def _maybe_send_resource_request(self) -> None:
        pass


class _Trainer(DataParallelTrainer):  # type: ignore[misc]
    """Without three actors that Ray Train starts beside controller and workers.

    Each costs a process and an import of Ray Data at every job: one hands out Ray Data sets,
    which there are none of; one is the autoscaler's (`_Workers`); one cleans up after a controller
    that died, which needs the dashboard and is what the end of the Ray job does as well.
    """

    def _create_default_callbacks(self) -> list[RayTrainCallback]:
        callbacks = super()._create_default_callbacks()
        unused = (PlacementGroupCleanerCallback, DatasetsCallback)
        return [callback for callback in callbacks if not isinstance(callback, unused)]

    def _initialize_and_run_controller(self, **parts: Any) -> Any:
        parts["scaling_policy"] = _Workers(self.scaling_config)
        return super()._initialize_and_run_controller(**parts)


Task = Callable[..., dict[str, float]] | str
"""task(*arguments, report, *extras) -> metrics; runs on every worker, rank 0's metrics count. As
"module:function" it is imported where it runs alone."""

_SILENCE_S = 1800
"""Longest wait of the workers for each other."""
_HANGS_S = "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"
_ENVIRONMENT = {
    # A worker that answers nothing for so long hangs; training holds its answers up little.
    _HANGS_S: "300",
    # Ray Train looks at its workers every 2 s otherwise: a second or two lost at each job's end.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "180",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # Paths in specs mean the same in every process.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


def fit(
    task: Task,
    arguments: tuple[Any, ...],
    settings: TrainSettings,
    storage: Path,
    report: Callable[..., None],
    run_name: str,
    *,
    extras: tuple[Any, ...] = (),
) -> dict[str, float]:
    """Run `task` on `settings.workers` workers and return rank 0's metrics.

    Ray must be connected. `storage` is Ray Train's own folder (shared between nodes). What a
    worker raised comes out here: one of ours as it was, anything else as a WorkerError of one
    line. Workers that are not placed within three minutes, twice, are a ResourceError.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # By reference: Train's controller would import what the task imports, and does not need it.
    call = [ray.put((task, arguments, report, extras))]
    trainer = _Trainer(
        functools.partial(_on_worker, call, settings.threads),
        backend_config=_backend(settings),
        scaling_config=ScalingConfig(
            num_workers=settings.workers,
            use_gpu=settings.num_gpus > 0,
            resources_per_worker=_resources(settings),
            placement_strategy="PACK",  # gradients cross a network only where they must
        ),
        run_config=RunConfig(
            name=run_name,
            storage_path=str(storage.resolve()),
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=1),
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )
    try:
        result = trainer.fit()
    except TrainingFailedError as error:
        raise _first_cause(error, run_name) from error
    metrics: dict[str, float] = result.return_value or {}
    return metrics


def _on_worker(call: list[Any], threads: int) -> dict[str, float]:
    """The function Ray Train calls on each worker; whatever it raises has a text of one line."""
    context = ray.train.get_context()
    cores = (os.cpu_count() or 1) // context.get_local_world_size()
    keep_freed_memory()
    try:
        with heavy_imports():
            import torch

            torch.set_num_threads(threads or max(1, cores))
            task, arguments, report, extras = ray.get(call[0])
            function = _function(task)
        metrics: dict[str, float] = function(*arguments, report, *extras)
        return metrics
    except PairloopError:
        raise
    except Exception as error:
        # Not unwrapped: an end that Ray tells of here is that of another process.
        raise WorkerError(f"worker {context.get_world_rank()}: {one_line(error)}") from error


def _function(task: Task) -> Callable[..., dict[str, float]]:
    if not isinstance(task, str):
        return task
    module, name = task.split(":")
    function: Callable[..., dict[str, float]] = getattr(importlib.import_module(module), name)
    return function


def _backend(settings: TrainSettings) -> Any:
    """A process group; one worker needs none, and does without the import in the controller."""
    if settings.workers == 1:
        return None
    from ray.train.torch import TorchConfig

    backend = "nccl" if settings.num_gpus > 0 else "gloo"
    return TorchConfig(backend=backend, timeout_s=_SILENCE_S)


def _resources(settings: TrainSettings) -> dict[str, float]:
    resources = {"CPU": settings.num_cpus}
    if settings.num_gpus > 0:
        resources["GPU"] = settings.num_gpus
    return resources


def _first_cause(error: TrainingFailedError, run_name: str) -> PairloopError:
    if isinstance(error, WorkerGroupError):
        causes = [
            _cause(failure, f"learner worker {rank}")
            for rank, failure in sorted(error.worker_failures.items())
        ]
        # When one worker fails the others lose their connection to it: that is not the cause.
        ours = [cause for cause in causes if type(cause) is not WorkerError]
        first = (ours or [cause for cause in causes if not _lost_peer(cause)] or causes)[0]
        # Where the connection's end is all that is known, the other one died.
        kind = WorkerDiedError if _lost_peer(first) else type(first)
        return kind(f"{run_name}: {first}")
    if isinstance(error, ControllerError):
        failure = error.controller_failure
        if isinstance(failure, RayActorError | WorkerGroupStartupFailedError):
            return WorkerDiedError(
                f"{run_name}: a learner worker died before all were there; {GO_ON}"
            )
        if any(sign in str(failure) for sign in ("resource", "timed out")):
            return ResourceError(
                f"{run_name}: the training workers were not placed ({one_line(failure)}); ask for "
                "fewer workers, CPUs or GPUs under `train`, or give Ray more"
            )
        return unwrapped(failure, f"{run_name}: Ray Train's controller")
    return unwrapped(error, run_name)


def _cause(failure: BaseException, who: str) -> PairloopError:
    """A worker that ended is an error of Train's health check around Ray's own."""
    if isinstance(failure, WorkerHealthCheckTimeoutError):
        return WorkerDiedError(
            f"{who} died: it did not answer for {os.environ[_HANGS_S]} s; {GO_ON}"
        )
    if isinstance(failure, WorkerHealthCheckFailedError):
        return unwrapped(failure.health_check_failure, who)
    return unwrapped(failure, who)


def _lost_peer(cause: PairloopError) -> bool:
    return any(sign in str(cause) for sign in ("gloo", "Connection closed", "NCCL", "ProcessGroup"))
