"""report.html: the whole run on one page that needs nothing else, not even a network."""

import os
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jinja2
from markupsafe import Markup

from services.telemetry.format import count, duration, metric, number, redact, share, size
from services.telemetry.record.doubts import doubts
from services.telemetry.record.events import SkillAccuracy
from services.telemetry.record.stage_rows import columns_of, stage_rows
from services.telemetry.record.state import RunState, Stage, skill_names
from services.telemetry.record.verdict import stage_lines
from services.telemetry.report.figures import (
    Figure,
    evaluation_figures,
    time_figure,
    training_figures,
)
from services.telemetry.report.online_figures import online_figures
from services.telemetry.report.shown_pairs import shown_episodes
from services.telemetry.report.summary import Extra


@dataclass(frozen=True, slots=True)
class SkillRow:
    """A skill's accuracy after every stage that was evaluated."""

    name: str
    in_preferences: bool
    by_stage: list[SkillAccuracy | None]


def write_report(folder: Path, state: RunState, extra: Extra) -> Path:
    """Write report.html into `folder`: whole, or not at all. Returns its path."""
    path = folder / "report.html"
    partial = folder / f".report.html.{os.getpid()}"
    folder.mkdir(parents=True, exist_ok=True)
    partial.write_text(render_report(state, extra), encoding="utf-8")
    partial.replace(path)
    return path


def render_report(state: RunState, extra: Extra) -> str:
    """The page. Everything that events or `extra` hold is escaped; passwords are hidden."""
    stages = state.ordered()
    evaluated = state.evaluated()
    rows = stage_rows(state)
    return _template().render(
        name=extra.get("name") or "run",
        doubts=doubts(state),
        verdict=stage_lines(state),
        error=redact(extra.get("error", "")),
        seed=extra.get("seed"),
        seconds=state.worked,
        paused=state.paused,
        attempts=state.attempts,
        under_way=_when(state.last_at) if extra.get("under_way") else "",
        reused=bool(state.stages) and all(stage.reused for stage in state.stages.values()),
        started=_when(state.started_at),
        peak_memory=extra.get("peak_memory_bytes"),
        planned_memory=extra.get("planned_memory_bytes"),
        rows=rows,
        columns=columns_of(rows),
        stages=stages,
        waiting=[stage for stage in stages if stage.waiting],
        evaluated=evaluated,
        skills=_skill_rows(evaluated),
        accuracy=evaluation_figures(state),
        online=[(stage, online_figures(stage)) for stage in stages if stage.episodes],
        training=[figure for stage in stages for figure in training_figures(stage)],
        time=time_figure(state),
        examples=[(s.name, shown_episodes(s)) for s in stages if s.examples],
        notes=[(_when(note.at), note) for note in state.notes],
        config=redact(extra.get("config", "")),
        versions=extra.get("versions", {}),
    )


@cache
def _template() -> jinja2.Template:
    """The page's frame; autoescape is on for every value."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        duration=duration,
        number=number,
        share=share,
        count=count,
        size=size,
        metric=metric,
        svg=_svg,
    )
    return environment.get_template("report.html.j2")


def _svg(figure: Figure) -> Markup:
    """The one thing that is markup already: plots.py escapes every text in it."""
    return Markup(figure.svg)  # noqa: S704


def _skill_rows(evaluated: list[Stage]) -> list[SkillRow]:
    rows = []
    for name, in_preferences in skill_names(evaluated):
        by_stage = [s.evaluation.skills.get(name) if s.evaluation else None for s in evaluated]
        rows.append(SkillRow(name, in_preferences, by_stage))
    return rows


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at)) if at else ""
