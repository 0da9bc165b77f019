"""What every training job does: one Ray Train run of a task, from a coroutine."""

import asyncio
from collections.abc import Callable
from typing import Any

from orchestrator.work import Work
from services.learner.ray_train import start
from services.learner.settings import TrainSettings
from services.telemetry.sink import Reporter


async def train(
    task: Callable[..., dict[str, float]], spec: Any, settings: TrainSettings, work: Work
) -> dict[str, float]:
    """Run the task on Ray Train workers; returns its metrics. WorkerError with the cause."""
    if settings.num_gpus:
        # Idle engines would hold the GPUs that the learner waits for.
        await work.run.samplers.release()
    # Not asyncio.to_thread: an interrupted run would wait for the job's end before it exits.
    future = start(
        task, spec, settings, work.scratch / "train", Reporter(work.run.sink), work.stage
    )
    return await asyncio.wrap_future(future)
