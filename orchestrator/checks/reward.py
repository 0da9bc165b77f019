"""Checks of a reward that need no cluster: the function, the prompts' answers."""

import ast
import difflib
import functools
import importlib.util
import json
import os
import sys
from pathlib import Path

from services.data.settings import DataSource
from services.errors import ConfigError, DataError
from services.reward.trial import try_function


def check_function(path: str, key: str) -> None:
    """ConfigError unless the module is there, and the name in it.

    The module's text tells for nearly all; one that fills itself at run time (a star import,
    `__getattr__`) is left to `check_calls`.
    """
    module, name = path.split(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found = importlib.util.find_spec(module)
    except (ModuleNotFoundError, ValueError):
        found = None
    if found is None:
        raise ConfigError(
            f"'{key}': there is no module '{module}' (looked in the current folder and in the"
            " environment)"
        )
    defined = _names_in(found.origin)
    if defined is not None and name not in defined:
        close = difflib.get_close_matches(name, defined, n=1)
        meant = f"; did you mean '{close[0]}'?" if close else ""
        place = found.origin if found.has_location else f"module '{module}'"
        raise ConfigError(f"'{key}': {place} defines no '{name}'{meant}")


def _names_in(origin: str | None) -> set[str] | None:
    """The names a module's text binds at its top level; None where the text cannot tell."""
    if origin is None or not origin.endswith(".py"):
        return None
    try:
        tree = ast.parse(Path(origin).read_bytes())
    except SyntaxError as error:
        raise ConfigError(f"{origin}, line {error.lineno}: {error.msg}") from None
    names: set[str] = set()
    pending: list[ast.AST] = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
            continue  # what is inside is not the module's
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        pending.extend(ast.iter_child_nodes(node))
    return None if names & {"*", "__getattr__"} else names


def check_calls(path: str, key: str, prompts: DataSource) -> None:
    """ConfigError unless the function can be called and gives a number on the first prompt.

    Where the prompts are still to be made, or on the hub, it is only loaded.
    """
    from services.data.rows import read_prompts

    if not Path(prompts.path).exists():
        _tried(path, key, None)
        return
    first = next(iter(read_prompts(prompts.model_copy(update={"limit": 1}))), None)
    if first is not None:
        _tried(path, key, (prompts.path, json.dumps([first.messages, first.metadata])))


@functools.cache  # a job is checked once more when it begins
def _tried(path: str, key: str, row: tuple[str, str] | None) -> None:
    messages, metadata = json.loads(row[1]) if row else ([], {})
    try:
        try_function(path, messages, metadata, f"the first prompt of {row[0]}" if row else "")
    except ConfigError as error:
        raise ConfigError(f"'{key}': {error}") from None


def check_answers(source: DataSource) -> None:
    """DataError unless the checker has something to check against, in every prompt."""
    from services.data.rows import read_prompts
    from services.reward.rules import CHECKED, compiled

    if not Path(source.path).exists():
        return
    for number, row in enumerate(read_prompts(source), start=1):
        if not CHECKED & row.metadata.keys():
            raise DataError(
                f"{source.path}: prompt {number} has neither 'answer' (a text, a number, or a list"
                " of these) nor 'pattern', which the checker needs; add one, or take another reward"
            )
        if "pattern" in row.metadata:
            compiled(f"{source.path}: prompt {number}", row.metadata["pattern"])
