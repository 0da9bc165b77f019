"""Checks of a reward that need no cluster: the function's name, the prompts' answers."""

import ast
import importlib.util
import os
import sys
from pathlib import Path

from services.data.settings import DataSource
from services.errors import ConfigError, DataError


def check_function(path: str) -> None:
    """ConfigError unless the module is there, and the name in its text.

    Importing it, which may take long, is left to the service.
    """
    module, name = path.split(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise ConfigError(
            f"'reward.parts.path': there is no module '{module}' (looked in the current folder and"
            " in the environment)"
        )
    defined = _names_in(found.origin)
    if defined is not None and name not in defined:
        raise ConfigError(f"'reward.parts.path': {found.origin} defines no '{name}'")


def _names_in(origin: str | None) -> set[str] | None:
    """The names at a module's top level, by its text; None where that cannot tell."""
    if origin is None or not origin.endswith(".py"):
        return None
    names: set[str] = set()
    try:
        body = ast.parse(Path(origin).read_bytes()).body
    except SyntaxError as error:
        raise ConfigError(f"{origin}, line {error.lineno}: {error.msg}") from None
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        else:  # a branch or a loop may define anything
            names.add("*" if not isinstance(node, ast.Expr) else "")
    return None if "*" in names else names


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
