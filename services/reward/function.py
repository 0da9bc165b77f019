"""A reward function of the user's: found by its import path, called with plain values."""

import importlib
import importlib.util
import inspect
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from services.errors import ConfigError, WorkerError, one_line

Message = Mapping[str, str]
"""role and content."""


@dataclass(frozen=True)
class RewardFunction:
    """f(prompt, answer, metadata), or with a parameter `messages` that one as well."""

    path: str
    function: Callable[..., object]
    takes_messages: bool

    def __call__(
        self,
        prompt_id: str,
        prompt: str,
        answer: str,
        metadata: Mapping[str, str],
        messages: Sequence[Message],
    ) -> float:
        """Its value as a float. Raises WorkerError naming function and prompt."""
        more = {"messages": [dict(message) for message in messages]} if self.takes_messages else {}
        try:
            value = self.function(prompt, answer, dict(metadata), **more)
        except Exception as error:
            raise WorkerError(
                f"reward function {self.path} failed on {prompt_id}: {one_line(error)}"
            ) from error
        try:
            # Scalars of numpy and torch are numbers as well, a text is not.
            number = float(cast(Any, value).__float__())
        except OverflowError:
            number = math.inf  # an integer beyond the floats
        except (AttributeError, TypeError, ValueError, RuntimeError) as error:
            raise WorkerError(
                f"reward function {self.path} gave {type(value).__name__} for {prompt_id}, not a"
                " number"
            ) from error
        if not math.isfinite(number):
            raise WorkerError(f"reward function {self.path} gave {number} for {prompt_id}")
        return number


def load_function(path: str, folder: str) -> RewardFunction:
    """The function at "package.module:function"; modules in `folder` are found as well.

    Raises ConfigError when there is no such module, no such function in it, or one that cannot be
    called as a reward is.
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
        raise ConfigError(
            f"reward function {path}: {name} {found} in {module.__file__ or module_name}"
        )
    return RewardFunction(path, function, _takes_messages(function, path))


def _takes_messages(function: Callable[..., object], path: str) -> bool:
    """Whether it has a parameter `messages`. ConfigError when no such call fits it."""
    # Of an object of a class with __call__ it is that method which is async.
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        type(function).__call__
    ):
        raise ConfigError(
            f"reward function {path} is async; write it with def, and let it return the number"
        )
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return False  # a builtin that does not tell
    found = signature.parameters.get("messages")
    more = {} if found is None else {"messages": list[Message]()}
    try:
        signature.bind("", "", {}, **more)
    except TypeError as error:
        raise ConfigError(
            f"reward function {path}{signature} cannot be called: {error}; it is called as"
            " f(prompt, answer, metadata), and with messages= where it has that parameter"
        ) from None
    return found is not None


def source_of(module: str) -> Path | None:
    """The source file of a module in the current folder or the environment; None without one."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found = importlib.util.find_spec(module)
    except (ModuleNotFoundError, ValueError):
        return None
    return Path(found.origin) if found and found.origin and Path(found.origin).is_file() else None
