"""What commands print: a table for people, or JSON for programs."""

import json
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

import click
from google.protobuf import json_format
from google.protobuf.message import Message

_STEERING = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
"""Unicode's categories: control, format, surrogate, private, unassigned, line, paragraph."""
_KEPT = "\n\t\u200c\u200d"
"""Lines, tabs, and the joiners that some scripts are written with."""
_WIDE = 100_000
"""Columns where nobody looks: a line of a pipe is not broken."""


def show(
    messages: Sequence[Message], rows: Iterable[Mapping[str, object]], as_json: bool, none: str
) -> None:
    """The messages as a JSON list, or a row for each of them; `none` where there is none."""
    if as_json:
        click.echo(json.dumps([as_dict(message) for message in messages], indent=2))
    elif not messages:
        click.echo(none)
    else:
        table(list(rows))


def as_dict(message: Message) -> dict[str, object]:
    """With every field, by its name in the .proto."""
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def table(rows: Sequence[Mapping[str, object]]) -> None:
    """Columns by the keys of the first row; a column without any value is left out."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(box=None, pad_edge=False, header_style="bold")
    columns = [name for name in rows[0] if any(row[name] not in ("", None) for row in rows)]
    for name in columns:
        right = all(isinstance(row[name], int) for row in rows)
        shown.add_column(name, justify="right" if right else "left", overflow="fold")
    for row in rows:
        shown.add_row(*("" if row[name] is None else harmless(str(row[name])) for name in columns))
    Console(width=None if sys.stdout.isatty() else _WIDE, markup=False, highlight=False).print(
        shown
    )


def harmless(text: str) -> str:
    """The same to read; what would steer the terminal, or turn the text around, as an escape."""
    return "".join(
        character if character in _KEPT or unicodedata.category(character) not in _STEERING
        else character.encode("unicode_escape", "backslashreplace").decode()
        for character in text
    )  # fmt: skip


def ago(seconds: float) -> str:
    """Such as "12 s ago", "3 h ago"."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{max(0, seconds):.0f} s ago"
