"""Checks of a reward that need no cluster: the function's name, the prompts' answers."""

import ast
import difflib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

from services.data.settings import DataSource
from services.errors import ConfigError, DataError

_IMPORT_S = 20.0
"""How long importing a module may take only to see its names."""


def check_function(path: str, key: str) -> None:
    """ConfigError unless the module is there, and the name in it.

    The module's text tells for nearly all; only one that fills itself at run time (a star import,
    `__getattr__`) is imported, in a process of its own.
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
    if defined is None:
        defined = _names_when_imported(module)
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


def _names_when_imported(module: str) -> set[str] | None:
    """By importing it elsewhere; None when that takes too long or fails: the service will say."""
    program = (
        "import importlib, json, sys; sys.path.append(sys.argv[2]);"
        "print(json.dumps(dir(importlib.import_module(sys.argv[1]))))"
    )
    try:
        done = subprocess.run(  # noqa: S603 - this interpreter, a module the user names
            [sys.executable, "-c", program, module, os.getcwd()],
            capture_output=True,
            text=True,
            timeout=_IMPORT_S,
            check=True,
        )
    except (subprocess.SubprocessError, OSError):
        return None
    return set(json.loads(done.stdout.splitlines()[-1]))


def check_answers(source: DataSource) -> None:
    """DataError unless the checker has something to check against, in every prompt."""
    from services.data.rows import read_prompts
    from services.reward.rules import compiled

    if not Path(source.path).exists():
        return
    for number, row in enumerate(read_prompts(source), start=1):
        if not {"answer", "pattern"} & row.metadata.keys():
            raise DataError(
                f"{source.path}: prompt {number} has neither 'answer' nor 'pattern', which the"
                " checker needs; add one, or take another reward"
            )
        if "pattern" in row.metadata:
            compiled(f"{source.path}: prompt {number}", row.metadata["pattern"])
