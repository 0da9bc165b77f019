"""After a stage was begun anew by --fresh: are the ones that follow still made from what it is?

The same settings give the same bytes on one machine, and then the stages after it are reused. Where
they do not (a GPU, another machine, another version of a library), those were made from the old
bytes: they are reused all the same, since making them anew may take days, and a warning names them.
"""

from collections.abc import Sequence
from pathlib import Path

from orchestrator.artifacts.content import same_data
from orchestrator.artifacts.inputs import inputs_of
from orchestrator.artifacts.store import read_begun, shown
from orchestrator.stages.plan import PlannedStage


def stood_before(stage: PlannedStage) -> Path | None:
    """What a stage begun by --fresh is made instead of; None for another, and where it is gone."""
    begun = read_begun(stage.scratch) if stage.found is None else None
    if begun is None or not begun.instead_of or not Path(begun.instead_of).is_dir():
        return None
    return Path(begun.instead_of)


def came_out_otherwise(
    stage: PlannedStage, planned: Sequence[PlannedStage], before: Path | None, now: Path
) -> str:
    """The warning, when it did and a reused stage was made from what stood before; "" else."""
    kept = [each.key for each in _made_from(stage, planned) if each.found is not None]
    if before is None or not kept or same_data(before, now):
        return ""
    flags = " ".join(f"--fresh {key}" for key in kept)
    return (
        f"came out other than {shown(before)}; reused as made from that one: {', '.join(kept)}; to"
        f" make them anew too: {flags}"
    )


def _made_from(stage: PlannedStage, planned: Sequence[PlannedStage]) -> list[PlannedStage]:
    """The stages that read this one, or one that does."""
    keys, found = {stage.key}, []
    for each in planned:
        if any(read.linked in keys for read in inputs_of(each.job)):
            keys.add(each.key)
            found.append(each)
    return found
