"""What every training job does: one Ray Train run of a task, from a coroutine."""

import asyncio
from collections.abc import Callable
from typing import Any

from orchestrator.stages.context import StageContext
from services.learner.settings import TrainSettings
from services.learner.train.ray_train import start
from services.telemetry.record.sink import Reporter


async def train(
    task: Callable[..., dict[str, float]], spec: Any, settings: TrainSettings, context: StageContext
) -> dict[str, float]:
    """Run the task on Ray Train workers; returns its metrics. WorkerError with the cause."""
    if settings.num_gpus:
        # Idle engines would hold the GPUs that the learner waits for.
        await context.run.engines.release()
    # Not asyncio.to_thread: an interrupted run would wait for the job's end before it exits.
    future = start(
        task, spec, settings, context.scratch / "train", Reporter(context.run.sink), context.stage
    )
    return await asyncio.wrap_future(future)
