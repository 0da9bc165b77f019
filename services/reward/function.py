"""A reward function of the user's: found by its import path, called with strings."""

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from services.errors import ConfigError, WorkerError, one_line


def load_function(path: str, folder: str) -> Callable[..., object]:
    """The function at "package.module:function"; modules in `folder` are found as well.

    Raises ConfigError when there is no such module, or no such function in it.
    """
    module_name, name = path.split(":")
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise ConfigError(
            f"reward function {path}: importing {module_name} failed: {one_line(error)}"
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        found = "is not callable" if hasattr(module, name) else "is not there"
        raise ConfigError(f"reward function {path}: {name} {found} in {module.__file__}")
    checked: Callable[..., object] = function
    return checked


def source_of(module: str) -> Path | None:
    """The source file of a module in the current folder or the environment; None without one."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found = importlib.util.find_spec(module)
    except (ModuleNotFoundError, ValueError):
        return None
    return Path(found.origin) if found and found.origin and Path(found.origin).is_file() else None


def call_function(
    function: Callable[..., object],
    path: str,
    prompt_id: str,
    prompt: str,
    answer: str,
    metadata: Mapping[str, str],
) -> float:
    """f(prompt, answer, metadata) as a float. Raises WorkerError naming function and prompt."""
    try:
        value = function(prompt, answer, dict(metadata))
    except Exception as error:
        raise WorkerError(
            f"reward function {path} failed on {prompt_id}: {one_line(error)}"
        ) from error
    try:
        # Scalars of numpy and torch are numbers as well, a text is not.
        return float(cast(Any, value).__float__())
    except (AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise WorkerError(
            f"reward function {path} gave {type(value).__name__} for {prompt_id}, not a number"
        ) from error
