"""One stage: reuse its finished artifact, or run its job."""

import shutil
import time
from pathlib import Path

from orchestrator.artifacts.lineage import parents_of
from orchestrator.artifacts.store import (
    Artifact,
    find_reusable,
    fingerprint,
    finish,
    read_artifact,
    shown,
)
from orchestrator.checks.preflight import check_inputs
from orchestrator.config.settings import Stage
from orchestrator.jobs.registry import job_named
from orchestrator.stages.context import RunContext, StageContext
from services.errors import ArtifactError
from services.learner.optim.warnings import optimizer_advice
from services.telemetry.record.events import Note, StageFinished, StageStarted


async def run_stage(stage: Stage, key: str, index: int, total: int, run: RunContext) -> Path:
    """The folder of the stage's artifact, made now or found finished.

    `stage` has no "@" references left. An interrupted stage leaves its scratch folder, and
    nothing under its final name.
    """
    parents = parents_of(stage)
    mark = fingerprint(stage, parents)
    final = run.folder / key
    found = find_reusable(run.folder.parent, final, mark)
    reused = found is not None
    run.report(StageStarted(stage=key, job=stage.job, index=index, total=total, reused=reused))
    if found is not None:
        _report_finished(run, stage, key, found, reused=True)
        return found
    check_inputs(stage)
    if hasattr(stage, "train"):
        for text in optimizer_advice(stage.train.optimizer):
            run.report(Note(stage=key, text=text, level="warning"))
    scratch = run.folder / ".work" / f"{key}-{mark}"
    context = StageContext(run, key, scratch / "out", scratch, mark)
    # Whatever an interrupted attempt had put there may be cut short.
    shutil.rmtree(context.out, ignore_errors=True)
    scratch.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    metrics = await job_named(stage.job)(stage, context)
    artifact = Artifact(
        kind=stage.job,
        fingerprint=mark,
        parents=parents,
        config=stage.model_dump(mode="json"),
        seed=stage.seed,
        metrics=metrics,
        seconds=time.monotonic() - started,
    )
    finish(context.out, final, artifact)
    shutil.rmtree(scratch, ignore_errors=True)
    _report_finished(run, stage, key, final, reused=False)
    return final


def _report_finished(
    run: RunContext, stage: Stage, key: str, folder: Path, *, reused: bool
) -> None:
    artifact = read_artifact(folder)
    if artifact is None:
        raise ArtifactError(f"{folder} has no artifact.json; it was removed while the run went on")
    run.report(
        StageFinished(
            stage=key,
            job=stage.job,
            seconds=artifact.seconds,
            reused=reused,
            folder=shown(folder),
            metrics=artifact.metrics,
        )
    )
