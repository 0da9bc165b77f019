"""Read a config: YAML with line numbers, key=value overrides, one clear line an error."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from orchestrator.config.keys import nearest_key
from orchestrator.jobs.job import Job
from orchestrator.jobs.registry import JOBS, Stage
from services.errors import ConfigError

_JOB: TypeAdapter[Job] = TypeAdapter(Stage)

Key = tuple[str | int, ...]


def read_config(path: Path, overrides: Sequence[str] = ()) -> Job:
    """The validated job of a YAML file with dotted overrides laid over it.

    An override is `a.b.c=value`; the value is read as YAML, and a mapping replaces the whole
    mapping that was there. Raises ConfigError naming file, line and key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as text: {error}") from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not valid YAML"
        raise ConfigError(f"{path}{line}: not valid YAML: {problem}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: a config is a mapping with a key 'job'; see configs/")
    lines = _lines(node, (), path)
    origin: dict[Key, str] = {key: f"{path}, line {line}" for key, line in lines.items()}
    for override in overrides:
        key = _override(data, override)
        below = [place for place in origin if place[: len(key)] == key]
        for place in below:
            del origin[place]
        origin[key] = f"override '{_shown(key, override)}'"
    return _validate(data, origin, str(path))


def _lines(node: yaml.Node | None, prefix: Key, file: Path) -> dict[Key, int]:
    """The line of every key; a key given twice is an error, which YAML itself lets pass."""
    found: dict[Key, int] = {}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            place = (*prefix, key.value)
            line = key.start_mark.line + 1
            if place in found:
                raise ConfigError(f"{file}, line {line}: '{key.value}' is given twice")
            found[place] = line
            found |= _lines(value, place, file)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            found[(*prefix, index)] = value.start_mark.line + 1
            found |= _lines(value, (*prefix, index), file)
    return found


def _override(data: dict[str, Any], override: str) -> Key:
    dotted, equals, text = override.partition("=")
    keys = dotted.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"override '{override}': write it as key=value, e.g. train.batch_size=8")
    try:
        # YAML wants "@stage" in quotes, which a shell takes off.
        value = text if text.startswith("@") else yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"override '{override}': the value is not valid YAML") from None
    place: Any = data
    path: Key = ()
    for part in keys[:-1]:
        step: str | int = int(part) if isinstance(place, list) and part.isdigit() else part
        path = (*path, step)
        if isinstance(place, list) and isinstance(step, int) and step < len(place):
            place = place[step]
        elif isinstance(place, dict):
            if not isinstance(place.get(step), dict | list):
                place[step] = {}
            place = place[step]
        else:
            raise ConfigError(f"override '{override}': there is no '{'.'.join(map(str, path))}'")
    last: str | int = keys[-1]
    if isinstance(place, list):
        if not keys[-1].isdigit() or int(keys[-1]) >= len(place):
            raise ConfigError(f"override '{override}': the list has {len(place)} entries")
        last = int(keys[-1])
    place[last] = value
    return (*path, last)


def _shown(key: Key, override: str) -> str:
    """As it was typed, but for an address, which may hold a password."""
    return f"{override.partition('=')[0]}=..." if key[-1] == "url" else override


def _validate(data: dict[str, Any], origin: dict[Key, str], file: str) -> Job:
    try:
        return _JOB.validate_python(data)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=True)
        first = _explain(details[0], data, origin, file)
        more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
        raise ConfigError(first + more) from None


def _explain(detail: ErrorDetails, data: Any, origin: dict[Key, str], file: str) -> str:
    key, missing = _place(detail["loc"], data, detail["type"] == "missing")
    where = _origin(key, origin) or file
    dotted = ".".join(map(str, key)) or "config"
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        near = nearest_key(key, data)
        meant = f"; did you mean '{near}'?" if near else ""
        return f"{where}: unknown key '{dotted}'{meant}"
    if missing:
        return f"{where}: missing key '{dotted}'"
    if kind == "unknown_job":
        where = origin.get((*key, "job"), where)
        return f"{where}: '{'.'.join(map(str, (*key, 'job')))}' must be one of {', '.join(JOBS)}"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        tag = str(context.get("discriminator", "")).strip("'")
        choices = context.get("expected_tags", "")
        inside = ".".join(map(str, (*key, tag)))
        where = origin.get((*key, tag), where)
        if not choices:
            return f"{where}: missing key '{inside}' (docs/jobs.md has its values)"
        return f"{where}: '{inside}' must be one of {choices}"
    message = detail["msg"].removeprefix("Value error, ")
    if not key:
        return f"{where}: {message}"
    value = detail["input"]
    plain = isinstance(value, str | int | float | bool | None)
    # Our own checks say themselves what is wrong, and what may be shown.
    shown = f", not {value!r}" if plain and kind != "value_error" else ""
    return f"{where}: '{dotted}': {message[0].lower()}{message[1:]}{shown}"


def _origin(key: Key, origin: dict[Key, str]) -> str | None:
    """Where the key stands, or the nearest one above it, or one that an override put below it."""
    for length in range(len(key), 0, -1):
        if key[:length] in origin:
            return origin[key[:length]]
        for place, said in origin.items():
            if place[:length] == key[:length]:
                return said
    return None


def _place(location: tuple[int | str, ...], data: Any, missing: bool) -> tuple[Key, bool]:
    """The key in the file of a pydantic location, which also holds the tags of unions."""
    key: Key = ()
    for position, part in enumerate(location):
        inside = isinstance(data, dict) and part in data
        inside = inside or (isinstance(data, list) and isinstance(part, int))
        if inside:
            data, key = data[part], (*key, part)
        elif missing and position == len(location) - 1:
            key = (*key, part)
    return key, missing


def to_yaml(job: Job) -> str:
    """The resolved config, every default written out."""
    return yaml.safe_dump(job.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
