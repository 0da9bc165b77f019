"""The table of stages as the terminal and the report have it: one row a stage."""

from dataclasses import dataclass

from services.telemetry.format import duration
from services.telemetry.record.events import Evaluated
from services.telemetry.record.state import RunState, Stage


@dataclass(frozen=True, slots=True)
class StageRow:
    """One row; the evaluations of a run's own models share the last one."""

    name: str
    seconds: float | None
    time: str
    """ "1:04", "1:04 reused", "waiting" or "unfinished"."""
    reused: bool
    folder: str = ""
    evaluation: Evaluated | None = None


def stage_rows(state: RunState) -> list[StageRow]:
    """What every stage took and showed; the numbers of an evaluation stand with its policy."""
    rows = [
        StageRow(s.name, s.seconds, _time(s), s.reused, s.folder, s.evaluation)
        for s in state.shown()
    ]
    evaluations = state.evaluations()
    if evaluations:
        seconds = sum(stage.seconds or 0.0 for stage in evaluations)
        reused = all(stage.reused for stage in evaluations)
        name = f"evaluations ({len(evaluations)})"
        rows.append(StageRow(name, seconds, _duration(seconds, reused), reused))
    return rows


def _time(stage: Stage) -> str:
    return _duration(stage.seconds, stage.reused) if stage.finished else stage.status


def _duration(seconds: float | None, reused: bool) -> str:
    return duration(seconds) + (" reused" if reused else "")
