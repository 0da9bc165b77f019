"""Links between the stages of a recipe: "@name/file" is a file of an earlier stage's artifact."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from services.errors import ConfigError
from services.settings import Settings

S = TypeVar("S", bound=Settings)


def resolve(settings: S, made: Mapping[str, Path]) -> S:
    """The settings with each "@name/file" replaced by a path; a stage not made yet stays."""

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: walk(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [walk(inner) for inner in value]
        if isinstance(value, str) and value.startswith("@"):
            name, _, rest = value[1:].partition("/")
            return str(made[name] / rest) if name in made else value
        return value

    # Only what was set, so that what was left to its default still says so.
    return type(settings).model_validate(walk(settings.model_dump(exclude_unset=True)))


def check_links(
    settings: Settings, earlier: Sequence[str], place: Callable[[str], str] = str
) -> None:
    """ConfigError for a link to what is no earlier stage; `place` says where a key stands."""

    def walk(value: Any, key: str) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                walk(inner, f"{key}.{name}" if key else str(name))
        elif isinstance(value, list):
            for at, inner in enumerate(value):
                walk(inner, f"{key}.{at}")
        elif isinstance(value, str) and value.startswith("@"):
            name = value[1:].split("/")[0]
            if name not in earlier:
                stages = ", ".join(earlier) or "none"
                raise ConfigError(
                    f"'{place(key)}': '{value}' names no earlier stage (earlier: {stages})"
                )

    walk(settings.model_dump(), "")
