"""What a run will do, stage by stage, before anything starts: reuse, go on, or begin.

A stage's fingerprint follows from its settings, its inputs' content and the fingerprints of the
stages it links to, so the whole recipe is known up front. What is begun anew says why: which keys,
their old and new values, and what of the old is kept. Nothing is deleted.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.artifacts.content import ContentIndex
from orchestrator.artifacts.identity import (
    Difference,
    differences,
    extent_of,
    fingerprint,
    identity_of,
    trunk,
)
from orchestrator.artifacts.inputs import Input
from orchestrator.artifacts.store import Artifact, finished_artifacts, read_artifact, shown
from orchestrator.jobs.job import Job
from services.errors import ConfigError

RECORD = "stage.json"
"""In a stage's scratch: whose work it is."""
_SHOWN = 6


@dataclass(frozen=True)
class PlannedStage:
    """One stage and what will become of it."""

    key: str
    job: Job
    identity: Mapping[str, Any]
    extent: Mapping[str, int]
    fingerprint: str
    trunk: str
    scratch: Path
    found: Path | None = None
    """A finished artifact of this fingerprint: it is reused."""
    extends: Path | None = None
    """A finished artifact of this trunk and a smaller extent: it is gone on from."""
    outlook: str = "will be made"
    """In words."""
    changed: Sequence[Difference] = ()
    """Why it begins anew, when something else stands in its place."""

    @property
    def made_anew(self) -> bool:
        """Whether something else was made or begun under this name before."""
        return bool(self.changed)


def run_folder(job: Job) -> Path:
    """Where a run of this job lies."""
    return Path(job.output) / (job.name or job.job)


def plan_stages(job: Job) -> list[PlannedStage]:
    """Every stage of a run, in order. ConfigError when an extent is below what was made."""
    folder = run_folder(job)
    content = ContentIndex(folder.parent / ".inputs.json")
    finished = finished_artifacts(folder.parent, folder)
    marks: dict[str, str] = {}

    def token(each: Input) -> str:
        if not each.linked:
            return content.token(each)
        return "/".join([f"artifact {marks[each.linked]}", *each.value.split("/")[1:]])

    planned = []
    for key, stage in job.expand().items():
        identity, extent = identity_of(stage, token), extent_of(stage)
        mark, stem = fingerprint(identity), trunk(identity, extent)
        marks[key] = mark
        scratch = folder / ".work" / f"{key}-{stem}"
        fresh = PlannedStage(key, stage, identity, extent, mark, stem, scratch)
        planned.append(_with_outlook(fresh, folder / key, finished))
    content.save()
    return planned


def notices(planned: Sequence[PlannedStage]) -> list[str]:
    """What a user should know before a run starts: one line a stage that is not simply made."""
    lines = []
    consequences = []
    for stage in planned:
        own = [each for each in stage.changed if not _of_an_artifact(each)]
        if own or (stage.changed and not _upstream(stage, planned)):
            lines.append(f"{stage.key} {stage.outlook}")
        elif stage.changed:
            consequences.append(stage.key)
        elif stage.extends is not None or (stage.scratch / RECORD).is_file():
            lines.append(f"{stage.key} {stage.outlook}")
    if consequences:
        lines.append(f"made anew with it: {', '.join(consequences)}; the old ones are kept too")
    return lines


def begin(stage: PlannedStage) -> None:
    """Make the scratch folder and write whose it is."""
    stage.scratch.mkdir(parents=True, exist_ok=True)
    record = {"kind": stage.job.job, "identity": stage.identity, "extent": dict(stage.extent)}
    text = json.dumps(record, indent=1)
    (stage.scratch / RECORD).write_text(text, encoding="utf-8")


def _with_outlook(stage: PlannedStage, final: Path, finished: Mapping[str, Path]) -> PlannedStage:
    found = finished.get(stage.fingerprint)
    if found is not None:
        return replace(stage, found=found, outlook=f"is reused from {shown(found)}")
    there = read_artifact(final)
    if there is not None and there.trunk == stage.trunk:
        _check_larger(stage, there.extent)
        more = ", ".join(map(str, differences(there.extent, stage.extent)))
        words = f"goes on from {shown(final)}: {more}"
        return replace(stage, extends=final, outlook=words)
    if (begun := _record(stage.scratch)) is not None:
        _check_larger(stage, begun["extent"])
        more = ", ".join(map(str, differences(begun["extent"], stage.extent)))
        return replace(stage, outlook="goes on where it stood" + (f": {more}" if more else ""))
    return _compared(stage, final, there)


def _compared(stage: PlannedStage, final: Path, there: Artifact | None) -> PlannedStage:
    """Against what stands in its place: the finished artifact, else other unfinished work."""
    if there is not None:
        before, kept = there.identity, f"{shown(final)} moves to .replaced/ when it is done"
    else:
        others = sorted(
            (path for path in stage.scratch.parent.glob(f"{stage.key}-*") if _record(path)),
            key=lambda path: path.stat().st_mtime,
        )
        if not others:
            return stage
        before, kept = (
            _record(others[-1])["identity"],
            f"what was begun stays in {shown(others[-1])}",
        )
    changed = differences(before, stage.identity)
    if not before:
        changed, why = (
            [Difference("code", "another version", "this one")],
            "another version made it",
        )
    else:
        more = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
        why = ", ".join(map(str, changed[:_SHOWN])) + more
    return replace(stage, changed=changed, outlook=f"begins anew: {why}; {kept}")


def _check_larger(stage: PlannedStage, before: Mapping[str, int]) -> None:
    for key, count in stage.extent.items():
        if count < before.get(key, 0):
            raise ConfigError(
                f"'{key}': {stage.key} went on to {before[key]} already, and {count} is less; set"
                f" it to {before[key]} or more, or give this run another name: name=..."
            )


def _record(scratch: Path) -> Any:
    """What `begin` wrote, or None where there is nothing whole."""
    try:
        record = json.loads((scratch / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and {"identity", "extent"} <= record.keys() else None


def _of_an_artifact(each: Difference) -> bool:
    return str(each.before).startswith("artifact ") and str(each.after).startswith("artifact ")


def _upstream(stage: PlannedStage, planned: Sequence[PlannedStage]) -> bool:
    """Whether a stage this one was changed by is made anew in the same run."""
    anew = {each.fingerprint for each in planned if each.made_anew or each.found is None}
    return any(
        str(each.after).removeprefix("artifact ").split("/")[0] in anew for each in stage.changed
    )
