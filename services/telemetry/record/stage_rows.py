"""The table of stages as the terminal and the report have it: one row a stage."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.telemetry.format import duration, share
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


@dataclass(frozen=True, slots=True)
class Column:
    """A figure that stands in a column of its own."""

    name: str
    key: str
    """Of Evaluated."""

    def shown(self, row: StageRow) -> str:
        """Three decimals; "-" where the row has none."""
        return share(None if row.evaluation is None else getattr(row.evaluation, self.key))


_COLUMNS = (
    Column("sampled acc", "sampled"),
    Column("greedy acc", "greedy"),
    Column("held-out loss", "lm_loss"),
)


def columns_of(rows: Sequence[StageRow]) -> list[Column]:
    """Those that have a number in some row."""
    return [column for column in _COLUMNS if any(column.shown(row) != "-" for row in rows)]


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
