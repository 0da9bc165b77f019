"""The tables a run ends with, on a terminal or as plain text."""

import io
from typing import IO

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from services.telemetry.format import count, one_line, reasons, share
from services.telemetry.record.events import SkillAccuracy
from services.telemetry.record.stage_rows import columns_of, stage_rows
from services.telemetry.record.state import RunState, Stage, skill_names, total_drops
from services.telemetry.record.verdict import doubtful, stage_lines

OUTSIDE = "*"
"""Marks a skill the preference data does not hold."""
_WARNINGS = 6


def final_table(state: RunState) -> Group:
    """The verdict, the stages, the skills, a line on each online loop and on each wait."""
    parts: list[RenderableType] = [Text(line, style="bold yellow") for line in doubtful(state)]
    parts += [Text(line) for line in stage_lines(state)]
    parts.append(_stages(state))
    skills = _skills(state)
    if skills is not None:
        parts.append(skills)
        if not all(inside for _, inside in skill_names(state.evaluated())):
            parts.append(Text(f"{OUTSIDE} not in the preference data", style="dim"))
    parts += [Text(_online_totals(stage)) for stage in state.ordered() if stage.episodes]
    waiting = [stage for stage in state.ordered() if stage.waiting]
    parts += [Text(f"{stage.name} is waiting: {one_line(stage.waiting)}") for stage in waiting]
    return Group(*parts)


def write_final_table(state: RunState, stream: IO[str]) -> None:
    """Print it: as wide as the terminal, or plain and 100 columns wide where there is none."""
    if stream.isatty():
        # The live view has cut them to its width, and kept the last ones alone.
        warned = [Text(f"warning: {line}", style="yellow") for line in _warnings(state)]
        Console(file=stream).print(Group(*warned, final_table(state)))
        return
    buffer = io.StringIO()
    console = Console(file=buffer, width=100, force_terminal=False, color_system=None)
    console.print(final_table(state))
    stream.write("\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n")
    stream.flush()


def _warnings(state: RunState) -> list[str]:
    """The last ones, each once; what is doubtful stands in the verdict."""
    lines = [note.line for note in state.notes if note.level == "warning" and not note.doubt]
    return [one_line(line) for line in dict.fromkeys(lines)][-_WARNINGS:]


def _stages(state: RunState) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    rows = stage_rows(state)
    columns = columns_of(rows)
    table.add_column("stage")
    for name in ("time", *(column.name for column in columns)):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(Text(row.name), Text(row.time), *(column.shown(row) for column in columns))
    return table


def _skills(state: RunState) -> Table | None:
    """Sampled accuracy by skill; a column a policy."""
    stages = [s for s in state.evaluated() if s.evaluation is not None and s.evaluation.skills]
    if not stages:
        return None
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="sampled accuracy by skill")
    table.title_justify = "left"
    table.add_column("skill")
    table.add_column("n", justify="right")
    for stage in stages:
        table.add_column(Text(stage.name), justify="right")
    for name, in_preferences in skill_names(stages):
        by_stage = [_skill(stage, name) for stage in stages]
        n = max(skill.sampled_n for skill in by_stage if skill is not None)
        row = [share(skill.sampled if skill else None) for skill in by_stage]
        table.add_row(Text(name + ("" if in_preferences else f" {OUTSIDE}")), str(n), *row)
    return table


def _skill(stage: Stage, name: str) -> SkillAccuracy | None:
    return stage.evaluation.skills.get(name) if stage.evaluation is not None else None


def _online_totals(stage: Stage) -> str:
    """What the loop of a stage did in all, as one sentence."""
    done = stage.finished_episodes()
    dropped = total_drops(stage.episodes.values())
    why = reasons(dropped)
    weights = stage.weights.values()
    parts = [
        _many(len(done), "episode"),
        f"{count(sum(e.paired for e in done))} pairs trained",
        _many(sum(dropped.values()), "group") + " dropped" + (f" ({why})" if why else ""),
    ]
    if weights:  # a replay hands out none
        attested = sum(w.workers for w in weights)
        repaired = sum(w.repaired for w in weights)
        parts.append(
            f"{len(weights)} weight versions, {attested} attestations, {repaired} repaired"
        )
    return f"{stage.name}: " + "; ".join(parts)


def _many(n: int, thing: str) -> str:
    return f"{n} {thing}" + ("" if n == 1 else "s")
