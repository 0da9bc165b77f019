"""One stage: reuse its finished artifact, or run its job."""

import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from orchestrator.artifacts.inputs import inputs_of, policy_of
from orchestrator.artifacts.lineage import Lineage
from orchestrator.artifacts.links import resolve
from orchestrator.artifacts.store import (
    CHECKPOINTS,
    RESUME,
    Artifact,
    artifact_root,
    finish,
    linked,
    read_artifact,
    shown,
)
from orchestrator.checks.preflight import check_made
from orchestrator.jobs.job import Job
from orchestrator.stages.context import RunContext, StageContext
from orchestrator.stages.plan import PlannedStage, begin
from services.errors import ArtifactError, Waiting, WorkerError
from services.inputs import Function
from services.telemetry.record.events import Note, StageFinished, StageStarted, StageWaiting


async def run_stage(
    planned: PlannedStage, made: Mapping[str, Path], index: int, total: int, run: RunContext
) -> Path:
    """The folder of the stage's artifact, made now or found finished.

    `made` are the artifacts of the stages before. An interrupted stage leaves its scratch folder,
    and nothing under its final name.
    """
    job = resolve(planned.job, made)
    reused = planned.found is not None
    run.report(
        StageStarted(
            stage=planned.key,
            job=job.job,
            index=index,
            total=total,
            reused=reused,
            policy=_trained_further(planned.job),
        )
    )
    if planned.found is not None:
        job.recall(planned.found, _context(planned, run))
        _report_finished(run, planned, planned.found, reused=True)
        return planned.found
    lineage = Lineage()
    check_made(job, lineage)
    for text in job.warnings():
        run.report(Note(stage=planned.key, text=text, level="warning"))
    found = {role: str(parent) for role, parent in job.parents(lineage).items()}
    context = _context(planned, run, found)
    parents = _parents(job) | found
    _prepare(planned, context, parents)
    started = time.monotonic()
    try:
        metrics = await job.run(context)
    except Waiting as reason:
        if job.may_wait:
            run.report(StageWaiting(stage=planned.key, reason=str(reason)))
            raise
        raise WorkerError(
            f"{planned.key}: job {job.job} waits ({reason}) without may_wait"
        ) from None
    if not context.out.is_dir():
        raise WorkerError(f"{planned.key}: job {job.job} ended and left nothing in its folder")
    if job.resume:
        linked(context.scratch / job.resume, context.out / RESUME)
    if (context.scratch / CHECKPOINTS).is_dir():
        linked(context.scratch / CHECKPOINTS, context.out / CHECKPOINTS)
    artifact = Artifact(
        kind=job.job,
        fingerprint=planned.fingerprint,
        trunk=planned.trunk,
        extent=dict(planned.extent),
        identity=dict(planned.identity),
        parents=parents,
        config=job.model_dump(mode="json"),
        seed=job.seed,
        metrics=metrics,
        seconds=_worked(run, planned.key, time.monotonic() - started),
    )
    final = run.folder / planned.key
    finish(context.out, final, artifact)
    shutil.rmtree(context.scratch, ignore_errors=True)
    _report_finished(run, planned, final, reused=False)
    return final


def _worked(run: RunContext, stage: str, seconds: float) -> float:
    """Seconds of all attempts at a stage without pauses, given those of this attempt."""
    recorded = run.state.stages.get(stage)
    if recorded is None:
        return seconds
    return max(seconds - recorded.paused, recorded.worked)


def _trained_further(job: Job) -> str:
    """The policy a training stage starts from: the stage that made it, else as it is written."""
    policy = policy_of(job) if job.makes == "policy" else None
    return "" if policy is None else policy.linked or policy.value


def _context(
    planned: PlannedStage, run: RunContext, parents: Mapping[str, str] | None = None
) -> StageContext:
    return StageContext(
        run=run,
        stage=planned.key,
        seed=planned.job.seed,
        out=planned.scratch / "out",
        scratch=planned.scratch,
        trunk=planned.trunk,
        parents=parents or {},
        extends=planned.extends,
    )


def _prepare(planned: PlannedStage, context: StageContext, parents: Mapping[str, str]) -> None:
    """The scratch folder; a stage that goes on from an artifact gets what that left for it."""
    # Whatever an interrupted attempt had put there may be cut short.
    shutil.rmtree(context.out, ignore_errors=True)
    begin(planned, parents)
    resume = planned.job.resume
    if planned.extends is None or not resume or (context.scratch / resume).exists():
        return
    partial, kept = context.scratch / f"{resume}.partial", context.scratch / CHECKPOINTS
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(kept, ignore_errors=True)
    try:
        if (planned.extends / CHECKPOINTS).is_dir():
            linked(planned.extends / CHECKPOINTS, kept)
        linked(planned.extends / RESUME, partial)
    except OSError as error:
        raise ArtifactError(
            f"{planned.extends} cannot be gone on from: {error.strerror or error}; begin the stage"
            f" anew: --fresh {planned.key}"
        ) from None
    partial.rename(context.scratch / resume)


def _parents(job: Job) -> dict[str, str]:
    """The place of each input, by its role."""
    return {
        each.role: artifact_root(each.value)
        for each in inputs_of(job)
        if not isinstance(each.mark, Function)
    }


def _report_finished(run: RunContext, planned: PlannedStage, folder: Path, *, reused: bool) -> None:
    artifact = read_artifact(folder)
    if artifact is None:
        raise ArtifactError(f"{folder} has no artifact.json; it was removed while the run went on")
    run.report(
        StageFinished(
            stage=planned.key,
            job=planned.job.job,
            seconds=artifact.seconds,
            reused=reused,
            folder=shown(folder),
            metrics=artifact.metrics,
        )
    )
