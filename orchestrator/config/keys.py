"""Every key a config may hold, for saying which one was meant."""

import difflib
from collections.abc import Iterator
from typing import Any

from pydantic.fields import FieldInfo

from orchestrator.jobs.job import Job
from orchestrator.jobs.registry import JOBS, job_class
from services.settings import Settings, settings_in


def nearest_key(wrong: tuple[str | int, ...], data: Any) -> str | None:
    """The dotted key most like an unknown one, of the job that the config describes.

    One of the same section first, then one whose last part is alike anywhere in the job.
    """
    prefix, job = _job_of(wrong, data)
    if job is None:
        return None
    inside = ".".join(map(str, wrong[len(prefix) :]))
    keys = sorted(set(_keys(job, "")))
    section, _, last = inside.rpartition(".")
    beside = [key for key in keys if key.rpartition(".")[0] == section]
    for candidates in (beside, keys):
        by_last: dict[str, str] = {}
        for key in candidates:
            by_last.setdefault(key.rpartition(".")[2], key)
        close = difflib.get_close_matches(last, by_last, n=1, cutoff=0.6)
        if close:
            return ".".join(map(str, (*prefix, by_last[close[0]])))
    return None


def _job_of(
    key: tuple[str | int, ...], data: Any
) -> tuple[tuple[str | int, ...], type[Job] | None]:
    """The innermost job that a key is inside of, and where that job stands."""
    found: tuple[tuple[str | int, ...], type[Job] | None] = ((), None)
    value = data
    for at in range(len(key) + 1):
        if isinstance(value, dict) and value.get("job") in JOBS:
            found = (key[:at], job_class(value["job"]))
        if at == len(key) or not isinstance(value, dict):
            break
        value = value.get(key[at])
    return found


def _keys(settings: type[Settings], prefix: str) -> Iterator[str]:
    for name, field in settings.model_fields.items():
        yield prefix + name
        for inner in sections(field):
            yield from _keys(inner, f"{prefix}{name}.")


def sections(field: FieldInfo) -> Iterator[type[Settings]]:
    """Settings below a key; a recipe's stages are jobs with keys of their own."""
    return (each for each in settings_in(field.annotation) if not issubclass(each, Job))
