"""What a dry run says beside the config: each stage's fate, and where its models come from."""

import os
from collections.abc import Collection, Sequence

from orchestrator.artifacts.inputs import inputs_of
from orchestrator.artifacts.lineage import Lineage
from orchestrator.checks.memory import memory_limit
from orchestrator.checks.memory_check import Room, check_memory, gpu_memory, memory_table
from orchestrator.checks.memory_plan import StageMemory, plan_memory
from orchestrator.jobs.job import Job
from orchestrator.stages.plan import PlannedStage, plan_stages
from services.errors import ResourceError
from services.hub import is_hub_name
from services.inputs import Function

_SOURCES = {
    "given": "as given",
    "lineage": "by lineage",
    "hub": "by its name on the hub",
    "policy": "the policy itself",
}


def outlook(job: Job, fresh: Collection[str] = ()) -> str:
    """Comment lines of YAML, so that the whole output is still a config."""
    planned = plan_stages(job, fresh)
    lineage = Lineage(job.expand())
    lines = ["", f"# What a run does ({len(planned)} stage{'s' if len(planned) > 1 else ''}):"]
    for index, stage in enumerate(planned, start=1):
        lines.append(f"# {index:>2} {stage.key}: {stage.outlook}")
        for role, parent in stage.job.parents(lineage).items():
            lines.append(f"#      {role}: {parent} ({_SOURCES[parent.source]})")
        for each in inputs_of(stage.job):
            if is_hub_name(each.value) and not isinstance(each.mark, Function):
                lines.append(f"#      {each.key}: no folder {each.value} here: a name on the hub")
        if stage.found is None:
            lines += [f"#      warning: {text}" for text in stage.job.warnings()]
    lines += [f"# {line}".rstrip() for line in _memory(planned, job)]
    return "\n".join(lines) + "\n"


def planned_memory(planned: Sequence[PlannedStage]) -> list[StageMemory]:
    """Of every stage that is not reused and trains or samples."""
    done = {stage.key for stage in planned if stage.found is not None}
    return plan_memory({stage.key: stage.job for stage in planned}, done)


def room_for(job: Job) -> Room:
    """What this machine has, for a local Ray; of a cluster nothing is known before it is there."""
    if job.ray.address or os.environ.get("RAY_ADDRESS"):
        return Room(None, None)
    return Room(memory_limit(), gpu_memory())


def _memory(planned: Sequence[PlannedStage], job: Job) -> list[str]:
    plans, room = planned_memory(planned), room_for(job)
    if not plans:
        return []
    number = {stage.key: index for index, stage in enumerate(planned, start=1)}
    lines = ["", *memory_table(plans, room, [number[plan.key] for plan in plans])]
    try:
        return lines + [f"warning: {text}" for text in check_memory(plans, room, job.place)]
    except ResourceError as error:
        return [*lines, f"this machine would refuse it: {error}"]
