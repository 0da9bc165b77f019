"""What a job reads: every model, tokenizer, row source and function its settings name."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from services.data.settings import DataSource
from services.inputs import Mark
from services.settings import Settings, fields_of, is_operational


@dataclass(frozen=True)
class Input:
    """One marked value."""

    key: str
    """Where it stands in the job's settings: "policy", "pairs.path", "reward.parts.0.path"."""
    mark: Mark
    value: str
    """A path, a hub name, "@stage/file", or an import path."""
    source: DataSource | None = None
    """Of rows: what else is said of them."""

    @property
    def role(self) -> str:
        """Its name among an artifact's parents."""
        return self.key.removesuffix(".path")

    @property
    def linked(self) -> str:
        """The stage it is made by, "" when it is not made in this run."""
        return self.value[1:].split("/")[0] if self.value.startswith("@") else ""


def inputs_of(settings: Settings, prefix: str = "") -> Iterator[Input]:
    """Every input of a job, or of settings inside one, in the order of the fields."""
    for name, field, value in fields_of(settings):
        if not is_operational(field):
            mark = next((m for m in field.metadata if isinstance(m, Mark)), None)
            yield from _inputs(f"{prefix}{name}", value, mark)


def policy_of(settings: Settings) -> Input | None:
    """The model that a job starts from, where it starts from one."""
    return next((each for each in inputs_of(settings) if each.key == "policy"), None)


def _inputs(key: str, value: Any, mark: Mark | None) -> Iterator[Input]:
    if isinstance(value, DataSource) and mark is not None:
        yield Input(f"{key}.path", mark, value.path, value)
    elif isinstance(value, Settings):
        yield from inputs_of(value, f"{key}.")
    elif isinstance(value, list | tuple):
        for at, inner in enumerate(value):
            yield from _inputs(f"{key}.{at}", inner, mark)
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _inputs(f"{key}.{name}", inner, mark)
    elif isinstance(value, str) and mark is not None:
        yield Input(key, mark, value)
