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
from services.reward.settings import RewardSettings
from services.reward.trial import Trial, try_function


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
    defined = _names_in(found.origin, key)
    if defined is not None and name not in defined:
        close = difflib.get_close_matches(name, defined, n=1)
        meant = f"; did you mean '{close[0]}'?" if close else ""
        place = found.origin if found.has_location else f"module '{module}'"
        raise ConfigError(f"'{key}': {place} defines no '{name}'{meant}")


def _names_in(origin: str | None, key: str) -> set[str] | None:
    """The names a module's text binds at its top level; None where the text cannot tell."""
    if origin is None or not origin.endswith(".py"):
        return None
    try:
        tree = ast.parse(Path(origin).read_bytes())
    except SyntaxError as error:
        raise ConfigError(f"'{key}': {origin}, line {error.lineno}: {error.msg}") from None
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


def check_calls(path: str, key: str, prompts: DataSource, *, chatml: bool) -> None:
    """ConfigError unless the function can be called and gives a number on the first prompt.

    Where the prompts are still to be made, or on the hub, it is only loaded. Unless the policy
    reads `chatml`, as the trial's prompt is rendered, a failed call is a warning.
    """
    trial = _tried(path, prompts)
    if trial.of == "load" or (trial.of == "call" and chatml):
        raise ConfigError(f"'{key}': {trial.said}")


def call_warnings(reward: RewardSettings, prompts: DataSource) -> list[str]:
    """Of functions that took too long, or whose call failed without proving much."""
    trials = [_tried(part.path, prompts) for part in reward.parts if part.kind == "function"]
    prompt = " (called with a prompt in ChatML; the policy's own may look otherwise)"
    return [each.said + (prompt if each.of == "call" else "") for each in trials if each.said]


def _tried(path: str, prompts: DataSource) -> Trial:
    from services.data.rows import read_prompts

    if not Path(prompts.path).exists():
        return _trial(path, "[[], {}]", "")
    first = next(iter(read_prompts(prompts.model_copy(update={"limit": 1}))))
    row = json.dumps([first.messages, first.metadata])
    return _trial(path, row, f"the first prompt of {prompts.path}")


@functools.cache  # asked for errors, for warnings, and when the job begins
def _trial(path: str, row: str, named: str) -> Trial:
    messages, metadata = json.loads(row)
    return try_function(path, messages, metadata, named)


def check_answers(source: DataSource) -> None:
    """DataError unless the checker has something to check against, in every prompt."""
    from services.data.rows import read_prompts
    from services.reward.rules import CHECKED, compiled, right_answers

    if not Path(source.path).exists():
        return
    for number, row in enumerate(read_prompts(source), start=1):
        if not CHECKED & row.metadata.keys():
            raise DataError(
                f"{source.path}: prompt {number} has neither 'answer' (a text, a number, or a list"
                " of these) nor 'pattern', which the checker needs; add one, or take another reward"
            )
        named = f"{source.path}: prompt {number}"
        if "answers" in row.metadata:
            right_answers(named, row.metadata["answers"])
        if "pattern" in row.metadata:
            compiled(named, row.metadata["pattern"])
