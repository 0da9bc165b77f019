"""The findings as a table: on a terminal in colours, else plain and 100 columns wide."""

import io
from collections.abc import Sequence
from typing import IO

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from orchestrator.doctor.finding import Finding
from services.telemetry.format import one_line

_STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}


def write_table(findings: Sequence[Finding], stream: IO[str]) -> None:
    """Print it, and how it stands in one sentence."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("", "check"):
        table.add_column(name, no_wrap=True)
    table.add_column("what was found; what to do")
    for each in findings:
        text = Text(one_line(each.found))
        if each.advice:
            text.append(f"\n→ {one_line(each.advice)}", style=_STYLES[each.level])
        table.add_row(Text(each.level, style=_STYLES[each.level]), Text(each.check), text)
    whole = Group(table, Text(_verdict(findings)))
    if stream.isatty():
        Console(file=stream).print(whole)
        return
    buffer = io.StringIO()
    Console(file=buffer, width=100, force_terminal=False, color_system=None).print(whole)
    stream.write("\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n")


def _verdict(findings: Sequence[Finding]) -> str:
    problems = sum(each.level == "problem" for each in findings)
    warnings = sum(each.level == "warning" for each in findings)
    warned = f"{warnings} warning{'' if warnings == 1 else 's'}"
    if problems:
        return f"{problems} problem{'' if problems == 1 else 's'} to mend first, {warned}"
    return f"ready to run, {warned}" if warnings else "ready to run"
