"""The tables a run ends with, on a terminal or as plain text."""

import io
from typing import IO

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from services.telemetry.format import count, duration, reasons, share
from services.telemetry.record.events import SkillAccuracy
from services.telemetry.record.state import RunState, Stage, total_drops
from services.telemetry.report.verdict import verdict

KEPT_OUT = "*"
"""Marks a skill the preference data does not hold."""


def final_table(state: RunState) -> Group:
    """The verdict, the stages, the skills, and a line on each online loop."""
    parts: list[RenderableType] = [Text(sentence) for sentence in verdict(state)]
    parts.append(_stages(state))
    skills = _skills(state)
    if skills is not None:
        parts += [skills, Text(f"{KEPT_OUT} not in the preference data", style="dim")]
    parts += [Text(_online_line(stage)) for stage in state.ordered() if stage.episodes]
    return Group(*parts)


def write_final_table(state: RunState, stream: IO[str]) -> None:
    """Print it: as wide as the terminal, or plain and 100 columns wide where there is none."""
    if stream.isatty():
        Console(file=stream).print(final_table(state))
        return
    buffer = io.StringIO()
    console = Console(file=buffer, width=100, force_terminal=False, color_system=None)
    console.print(final_table(state))
    stream.write("\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n")
    stream.flush()


def _stages(state: RunState) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("stage")
    for name in ("time", "sampled acc", "greedy acc", "held-out loss"):
        table.add_column(name, justify="right")
    for stage in state.ordered():
        told = stage.evaluation
        table.add_row(
            Text(stage.name),
            Text(_time(stage)),
            share(told.sampled if told else None),
            share(told.greedy if told else None),
            share(told.lm_loss if told else None),
        )
    return table


def _time(stage: Stage) -> str:
    if not stage.over:
        return "unfinished"
    return duration(stage.seconds) + (" reused" if stage.reused else "")


def _skills(state: RunState) -> Table | None:
    """Sampled accuracy by skill; a column a policy."""
    stages = [s for s in state.ordered() if s.evaluation is not None and s.evaluation.skills]
    if not stages:
        return None
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="sampled accuracy by skill")
    table.title_justify = "left"
    table.add_column("skill")
    table.add_column("n", justify="right")
    for stage in stages:
        table.add_column(Text(stage.name), justify="right")
    for name, kept_out in skill_names(stages):
        told = [_skill(stage, name) for stage in stages]
        n = max(skill.sampled_n for skill in told if skill is not None)
        row = [share(skill.sampled if skill else None) for skill in told]
        table.add_row(Text(name + (f" {KEPT_OUT}" if kept_out else "")), str(n), *row)
    return table


def skill_names(stages: list[Stage]) -> list[tuple[str, bool]]:
    """Every skill evaluated and whether it is outside the preference data; those come last."""
    names: dict[str, bool] = {}
    for stage in stages:
        if stage.evaluation is not None:
            for name, skill in stage.evaluation.skills.items():
                names[name] = not skill.in_preferences
    return sorted(names.items(), key=lambda item: (item[1], item[0]))


def _skill(stage: Stage, name: str) -> SkillAccuracy | None:
    return stage.evaluation.skills.get(name) if stage.evaluation is not None else None


def _online_line(stage: Stage) -> str:
    done = stage.finished_episodes()
    dropped = total_drops(stage.episodes.values())
    weights = stage.weights.values()
    parts = [
        f"{len(done)} episodes",
        f"{count(sum(e.paired for e in done))} pairs trained",
        f"{sum(dropped.values())} groups dropped" + (f" ({reasons(dropped)})" if dropped else ""),
        f"{len(weights)} weight versions, {sum(w.workers for w in weights)} attestations, "
        f"{sum(w.repaired for w in weights)} repaired",
    ]
    return f"{stage.name}: " + "; ".join(parts)
