"""What a run will do, stage by stage, before anything starts: reuse, go on, or begin.

A stage's fingerprint follows from its settings, its inputs' content and the fingerprints of the
stages it links to, so the whole recipe is known up front. What is begun anew says why: which keys,
their old and new values, and what of the old is kept. Nothing is deleted.

A stage that `--fresh` names is begun whatever is there. What is there moves to `.replaced/` before
anything starts, and the record in the scratch folder remembers it: without the flag the same
command then goes on with the new work.
"""

import difflib
from collections.abc import Collection, Mapping, Sequence
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
from orchestrator.artifacts.store import (
    RECORD,
    REPLACED,
    WORK,
    Artifact,
    Begun,
    finished_artifacts,
    read_artifact,
    read_begun,
    set_aside,
    shown,
    write_begun,
)
from orchestrator.jobs.job import Job
from services.errors import ConfigError

_SHOWN = 6
_GO_ON = "to go on after an interruption leave --fresh out"


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
    renewed: bool = False
    """It begins anew though the same work may stand there: that trained nothing, or --fresh."""
    fresh: bool = False
    """Named by --fresh."""
    aside: Sequence[Path] = ()
    """Of a fresh stage: what moves to `.replaced/` before anything starts."""
    instead_of: Path | None = None
    """Of a fresh stage: the finished artifact that would have been reused."""

    @property
    def made_anew(self) -> bool:
        """Whether something was made or begun under this name before, and is not gone on with."""
        return bool(self.changed) or self.renewed


def run_folder(job: Job) -> Path:
    """Where a run of this job lies."""
    return Path(job.output) / (job.name or job.job)


def check_stage_names(job: Job, names: Sequence[str]) -> None:
    """ConfigError for a name of --fresh that no stage of the run has."""
    stages = list(job.expand())
    for name in names:
        if name not in stages:
            close = difflib.get_close_matches(name, stages, n=1)
            meant = f"did you mean {close[0]}? " if close else ""
            raise ConfigError(
                f"--fresh {name}: there is no such stage; {meant}stages: {', '.join(stages)}"
            )


def plan_stages(job: Job, fresh: Collection[str] = ()) -> list[PlannedStage]:
    """Every stage of a run, in order. ConfigError when an extent is below what was made.

    Those named in `fresh` are begun anew, whatever is there.
    """
    folder = run_folder(job)
    content = ContentIndex(folder.parent / ".inputs.json")
    everything = finished_artifacts(folder.parent, folder)
    finished = everything
    if fresh:
        # What moves from its place is found there by no other stage either.
        aside = [folder / key for key in fresh]
        finished = finished_artifacts(folder.parent, folder, without=aside)
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
        scratch = folder / WORK / f"{key}-{stem}"
        new = PlannedStage(key, stage, identity, extent, mark, stem, scratch)
        if key in fresh:
            planned.append(_renewed(new, folder / key, everything.get(mark)))
        else:
            planned.append(_with_outlook(new, folder / key, finished))
    content.save()
    return planned


def notices(planned: Sequence[PlannedStage]) -> list[str]:
    """What a user should know before a run starts: one line a stage that is not simply made."""
    lines = []
    consequences = []
    for stage in planned:
        own = [each for each in stage.changed if not _of_an_artifact(each)]
        if own or stage.renewed or (stage.changed and not _upstream(stage, planned)):
            lines.append(f"{stage.key} {stage.outlook}")
        elif stage.changed:
            consequences.append(stage.key)
        elif stage.extends is not None or (stage.scratch / RECORD).is_file():
            lines.append(f"{stage.key} {stage.outlook}")
    if consequences:
        lines.append(f"made anew with it: {', '.join(consequences)}; the old ones are kept too")
    return lines


def begin(stage: PlannedStage, parents: Mapping[str, str] | None = None) -> None:
    """Make the scratch folder and write whose it is, with the place of each parent by role."""
    begun = Begun(
        kind=stage.job.job,
        fingerprint=stage.fingerprint,
        trunk=stage.trunk,
        extent=dict(stage.extent),
        identity=dict(stage.identity),
        fresh=stage.fresh,
        instead_of=str(stage.instead_of or ""),
    )
    write_begun(stage.scratch, begun, parents or {})


def renew(planned: Sequence[PlannedStage]) -> None:
    """Do what --fresh asks: move what is there to `.replaced/`, and record what is begun."""
    for stage in planned:
        if not stage.fresh:
            continue
        run, before = stage.scratch.parent.parent, stage.instead_of
        for path in stage.aside:
            name = stage.key if path != stage.scratch else f"{stage.key}-begun"
            moved = set_aside(path, run, name)
            before = moved if path == before else before
        begin(replace(stage, instead_of=before))


def _renewed(stage: PlannedStage, final: Path, found: Path | None) -> PlannedStage:
    """Begun anew as --fresh asks. `found` has its fingerprint, and may be another run's."""
    stage = replace(
        stage,
        fresh=True,
        aside=[path for path in (final, stage.scratch) if path.exists()],
        instead_of=found,
    )
    parts = [shown(final)] if final.exists() else []
    parts += ["what was begun"] if stage.scratch.exists() else []
    verb = "move" if len(parts) > 1 else "moves"
    said = [f"{' and '.join(parts)} {verb} to {REPLACED}/"] if parts else []
    if found is not None and found != final:
        said.append(f"{shown(found)} is not reused")
    if not said:
        return replace(stage, outlook="will be made (there is nothing yet that it could reuse)")
    words = f"begins anew, as --fresh asks: {', '.join(said)}; {_GO_ON}"
    return replace(stage, renewed=True, outlook=words)


def _with_outlook(stage: PlannedStage, final: Path, finished: Mapping[str, Path]) -> PlannedStage:
    found, begun = finished.get(stage.fingerprint), read_begun(stage.scratch)
    begun_fresh = begun is not None and begun.fresh and found != final
    if found is not None and not begun_fresh and not _made_nothing(stage, found):
        return replace(stage, found=found, outlook=f"is reused from {shown(found)}")
    there = read_artifact(final)
    same = there is not None and there.trunk == stage.trunk
    nothing = same and _made_nothing(stage, final)
    if there is not None and same and not nothing:
        _check_larger(stage, there.extent)
        more = ", ".join(map(str, differences(there.extent, stage.extent)))
        words = f"goes on from {shown(final)}: {more}"
        return replace(stage, extends=final, outlook=words)
    if begun is not None:
        _check_larger(stage, begun.extent)
        more = ", ".join(map(str, differences(begun.extent, stage.extent)))
        return replace(stage, outlook="goes on where it stood" + (f": {more}" if more else ""))
    if nothing:
        words = f"begins anew: {shown(final)} trained on nothing, and moves to {REPLACED}/"
        return replace(stage, renewed=True, outlook=f"{words} when it is done")
    return _compared(stage, final, there)


def _made_nothing(stage: PlannedStage, folder: Path) -> bool:
    artifact = read_artifact(folder)
    return artifact is not None and stage.job.made_nothing(folder, artifact.metrics)


def _compared(stage: PlannedStage, final: Path, there: Artifact | None) -> PlannedStage:
    """Against what stands in its place: the finished artifact, else other unfinished work."""
    if there is not None:
        before, kept = there.identity, f"{shown(final)} moves to {REPLACED}/ when it is done"
    else:
        others = sorted(
            stage.scratch.parent.glob(f"{stage.key}-*"), key=lambda path: path.stat().st_mtime
        )
        begun = [(path, record) for path in others if (record := read_begun(path))]
        if not begun:
            return stage
        other, record = begun[-1]
        before, kept = record.identity, f"what was begun stays in {shown(other)}"
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
                f" it to {before[key]} or more, or begin anew: --fresh {stage.key}"
            )


def _of_an_artifact(each: Difference) -> bool:
    return str(each.before).startswith("artifact ") and str(each.after).startswith("artifact ")


def _upstream(stage: PlannedStage, planned: Sequence[PlannedStage]) -> bool:
    """Whether a stage this one was changed by is made anew in the same run."""
    anew = {each.fingerprint for each in planned if each.made_anew or each.found is None}
    return any(
        str(each.after).removeprefix("artifact ").split("/")[0] in anew for each in stage.changed
    )
