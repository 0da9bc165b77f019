"""What a dry run says beside the config: each stage's fate, and where its models come from."""

from collections.abc import Collection

from orchestrator.artifacts.inputs import inputs_of
from orchestrator.artifacts.lineage import Lineage
from orchestrator.jobs.job import Job
from orchestrator.stages.plan import plan_stages
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
    return "\n".join(lines) + "\n"
