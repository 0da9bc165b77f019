"""One stage: resolve what it refers to, reuse its finished artifact, or run its job."""

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.artifacts import Artifact, find_reusable, fingerprint, finish
from orchestrator.config import Stage
from orchestrator.jobs import JOBS
from orchestrator.lineage import parents_of
from orchestrator.preflight import check_inputs
from orchestrator.samplers import Samplers
from services.telemetry.events import Event, StageFinished, StageStarted


@dataclass(frozen=True)
class Run:
    """What the stages of one run share."""

    name: str
    folder: Path
    seed: int
    report: Callable[[Event], None]
    """Record an event, from this process."""
    sink: Any
    """The EventSink actor, for events from other processes."""
    samplers: Samplers


@dataclass(frozen=True)
class Work:
    """What a job gets beside its config."""

    run: Run
    stage: str
    out: Path
    """The artifact's folder under its partial name; the job fills it."""
    scratch: Path
    """Kept until the stage is done: what an interrupted job goes on from."""
    fingerprint: str


async def run_stage(stage: Stage, key: str, index: int, total: int, run: Run) -> Path:
    """The folder of the stage's artifact, made now or found finished.

    `stage` has no "@" references left. An interrupted stage leaves its scratch folder, and
    nothing under its final name.
    """
    parents = parents_of(stage)
    mark = fingerprint(stage, parents)
    final = run.folder / key
    run.report(StageStarted(stage=key, job=stage.job, index=index, total=total))
    found = find_reusable(run.folder.parent, final, mark)
    if found is not None:
        _report_finished(run, stage, key, found, reused=True)
        return found
    check_inputs(stage)
    scratch = run.folder / ".work" / f"{key}-{mark}"
    work = Work(run, key, scratch / "out", scratch, mark)
    # Whatever an interrupted attempt had put there may be cut short.
    shutil.rmtree(work.out, ignore_errors=True)
    scratch.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    metrics = await JOBS[stage.job](stage, work)
    artifact = Artifact(
        kind=stage.job,
        fingerprint=mark,
        parents=parents,
        config=stage.model_dump(mode="json"),
        seed=stage.seed,
        metrics=metrics,
        seconds=time.monotonic() - started,
    )
    finish(work.out, final, artifact)
    shutil.rmtree(scratch, ignore_errors=True)
    _report_finished(run, stage, key, final, reused=False)
    return final


def _report_finished(run: Run, stage: Stage, key: str, folder: Path, *, reused: bool) -> None:
    artifact = Artifact.model_validate_json((folder / "artifact.json").read_text(encoding="utf-8"))
    run.report(
        StageFinished(
            stage=key,
            job=stage.job,
            seconds=artifact.seconds,
            reused=reused,
            folder=os.path.relpath(folder),
            metrics=artifact.metrics,
        )
    )


def resolve(stage: Stage, made: dict[str, Path], seed: int) -> Stage:
    """The stage with each "@name/file" replaced by a path, and the run's seed unless it has one."""

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: walk(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [walk(inner) for inner in value]
        if isinstance(value, str) and value.startswith("@"):
            name, _, rest = value[1:].partition("/")
            return str(made[name] / rest) if rest else str(made[name])
        return value

    data = walk(stage.model_dump())
    if "seed" not in stage.model_fields_set:
        data["seed"] = seed
    return type(stage).model_validate(data)
