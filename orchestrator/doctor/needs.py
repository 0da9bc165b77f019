"""What a config needs beside the machine: its inputs, the hub, and memory by plan."""

from collections.abc import Iterator

from orchestrator.artifacts.lineage import Lineage
from orchestrator.checks.hub import check_hub
from orchestrator.checks.memory import check_kv_cache
from orchestrator.checks.memory_check import check_memory
from orchestrator.checks.memory_plan import plan_memory
from orchestrator.checks.preflight import check
from orchestrator.doctor.finding import Finding, problem_of, told
from orchestrator.doctor.subject import Subject
from orchestrator.stages.outlook import room_for
from services.errors import PairloopError
from services.hub import is_hub_name
from services.telemetry.format import size


def check_inputs(subject: Subject) -> Iterator[Finding]:
    """Files, folders, functions and hub names, as a run's preflight checks them."""
    if not subject.job:
        return
    try:
        check(subject.job, addresses=False)
        check_hub(subject.stages, Lineage(subject.stages))
    except PairloopError as error:
        yield problem_of("inputs", error, "bring it here, or name another in the config")
        return
    names = ", ".join(subject.stages)
    yield Finding("inputs", "ok", f"everything is there that these stages read: {names}")


def check_plan(subject: Subject) -> Iterator[Finding]:
    """The memory plan of every stage against this machine."""
    if not subject.job:
        return
    plans, room = plan_memory(subject.stages), room_for(subject.job)
    try:
        if room.host is not None:
            check_kv_cache([engine for job in subject.stages.values() for engine in job.engines()])
        tight = check_memory(plans, room, subject.job.place)
    except PairloopError as error:
        yield problem_of("memory plan", error, "lower it in the config")
        return
    for text in tight:
        yield told("memory plan", "warning", text)
    known = [plan for plan in plans if not plan.unknown]
    if known and not tight:
        most = max(known, key=lambda plan: plan.host)
        there = f" of {size(room.host)}" if room.host is not None else ""
        yield Finding(
            "memory plan", "ok", f"{size(most.host)}{there} at the fullest moment, in {most.key}"
        )
    # Of what is no hub name the inputs are told of already.
    for name in dict.fromkeys(plan.unknown for plan in plans if is_hub_name(plan.unknown)):
        text = f"not known before {name} is fetched"
        yield Finding("memory plan", "warning", text, "run with --dry-run once it is there")
