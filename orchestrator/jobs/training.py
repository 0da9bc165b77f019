"""What every training job does: one Ray Train run of a task, from a coroutine."""

import asyncio
from typing import TYPE_CHECKING, TypeVar, cast

from orchestrator.artifacts.store import CHECKPOINTS, LEARNER
from services.learner.jobs.settings import Place
from services.learner.settings import TrainSettings
from services.settings import Settings

if TYPE_CHECKING:
    from orchestrator.stages.context import StageContext

S = TypeVar("S", bound=Settings)


async def train(
    task: str, job: Settings, kind: type[Settings], context: "StageContext"
) -> dict[str, float]:
    """Run a task of the learner on Ray Train workers; returns its metrics.

    `task` is "module:function", imported where it runs; it is given the part of the job's settings
    that is `kind`. Raises WorkerError with the cause.
    """
    from services.learner.train.background import start
    from services.telemetry.record.sink import Reporter

    settings = part_of(job, kind)
    how: TrainSettings = settings.train  # type: ignore[attr-defined]
    if how.num_gpus:
        # Idle engines would hold the GPUs that the learner waits for.
        await context.run.engines.release()
    place = Place(
        stage=context.stage,
        seed=context.seed,
        out=str(context.out),
        kept=str(context.scratch / CHECKPOINTS),
        folder=str(context.scratch / LEARNER),
        hold=str(context.run.live.hold.file.resolve()),
    )
    # Not asyncio.to_thread: an interrupted run would wait for the job's end before it exits.
    future = start(
        task,
        (settings, place),
        how,
        context.scratch / "train",
        Reporter(context.run.sink),
        context.stage,
    )
    try:
        return await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        await context.run.live.hold.checkpointed(context.stage, how.stop_s)
        raise


def part_of(settings: Settings, kind: type[S]) -> S:
    """The fields of `settings` that `kind` declares, as a `kind`: what a service is told."""
    values = {name: getattr(settings, name) for name in kind.model_fields}
    return cast(S, kind.model_construct(settings.model_fields_set & values.keys(), **values))
