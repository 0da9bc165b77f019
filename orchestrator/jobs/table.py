"""The docs' tables of jobs and of their keys, from what each job declares.

.venv/bin/python -m orchestrator.jobs.table > docs/jobs.md
"""

import sys
from collections.abc import Iterable, Iterator

from pydantic.fields import FieldInfo

from orchestrator.config.keys import sections
from orchestrator.jobs.job import Job
from orchestrator.jobs.policy_job import PolicyJob
from orchestrator.jobs.registry import JOBS, job_class
from services.inputs import Function, Mark, Model, Rollouts, Rows, Tokenizer
from services.settings import EXTENDABLE, Settings, is_operational

_HEAD = """\
# Jobs

Made by `python -m orchestrator.jobs.table` from what each job in orchestrator/jobs/ declares; a
test holds the page to it. A recipe chains jobs; `@name` is the artifact of an earlier stage.
Each key's type and range are in [config.md](config.md).

"""
_KEYS = """
## Keys

A key is *identity* unless it is marked: it changes what is computed, so another value is other
work. *o* is operational (where, on what, how fast, how long): a rerun with another value goes on
where it stood. *x* is an extent: a larger value goes on from where a smaller one ended.

| key | | default | what it is |
|---|---|---|---|
"""


def jobs_page() -> str:
    """The whole page, as Markdown."""
    rows = ["| job | what it does | reads | makes | may wait |", "|---|---|---|---|---|"]
    rows += [_job_row(name, job_class(name)) for name in JOBS]
    shared = dict.fromkeys(_keys(Job, "", operational=False))
    measured = dict.fromkeys(_keys(PolicyJob, "", operational=False))
    parts = [_HEAD, "\n".join(rows), "\n", _KEYS, "\n".join(shared), "\n"]
    parts += _section("Every job that makes a policy", (k for k in measured if k not in shared))
    for name in JOBS:
        job = job_class(name)
        above = shared | measured if issubclass(job, PolicyJob) else shared
        rows = list(_keys(job, "", operational=False))
        # A section that differs in one key is written out whole.
        own = {_top(row) for row in rows if row not in above}
        parts += _section(name, (row for row in rows if _top(row) in own))
    return "".join(parts)


def _top(row: str) -> str:
    """The first part of a row's key."""
    return row.split("`")[1].split(".")[0]


def _section(title: str, keys: Iterable[str]) -> list[str]:
    head = f"\n### {title}\n\n| key | | default | what it is |\n|---|---|---|---|\n"
    return [head, "\n".join(keys), "\n"]


def _job_row(name: str, job: type[Job]) -> str:
    reads = ", ".join(f"`{key}` ({_kind(mark)})" for key, mark in _marks(job, "")) or "nothing"
    what = " ".join((job.__doc__ or "").split())
    return f"| `{name}` | {what} | {reads} | {job.makes} | {'yes' if job.may_wait else 'no'} |"


def _kind(mark: Mark) -> str:
    match mark:
        case Rows(kind=kind):
            return kind
        case Model():
            return "model"
        case Tokenizer():
            return "tokenizer"
        case Rollouts():
            return "recorded rollouts"
        case Function():
            return "function"


def _marks(settings: type[Settings], prefix: str) -> Iterator[tuple[str, Mark]]:
    seen = set()
    for name, field in settings.model_fields.items():
        if is_operational(field):
            continue  # what another stage reads: an evaluation
        mark = next((m for m in field.metadata if isinstance(m, Mark)), None)
        found = [(prefix + name, mark)] if mark is not None else _inside(field, prefix + name)
        for key, inner in found:
            if inner is not None and (key, inner) not in seen:
                seen.add((key, inner))
                yield key, inner


def _inside(field: FieldInfo, key: str) -> Iterator[tuple[str, Mark]]:
    for inner in sections(field):
        yield from _marks(inner, f"{key}.")


def _keys(settings: type[Settings], prefix: str, *, operational: bool) -> Iterator[str]:
    for name, field in settings.model_fields.items():
        if not prefix and name == "job":
            continue
        below = operational or is_operational(field)
        yield _key_row(prefix + name, field, below)
        seen: set[str] = set()
        for inner in sections(field):
            for row in _keys(inner, f"{prefix}{name}.", operational=below):
                if row not in seen:
                    seen.add(row)
                    yield row


def _key_row(key: str, field: FieldInfo, operational: bool) -> str:
    sort = "o" if operational else "x" if EXTENDABLE in field.metadata else ""
    what = " ".join((field.description or "").split()).replace("|", "\\|")
    return f"| `{key}` | {sort} | {_default(field)} | {what} |"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    value = field.default
    if isinstance(value, Settings) or value is None or value == "":
        return ""
    return f"`{value}`"


if __name__ == "__main__":
    sys.stdout.write(jobs_page())
