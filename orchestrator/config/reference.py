"""The docs' page of every config key, from what the settings declare.

.venv/bin/python -m orchestrator.config.reference > docs/config.md
"""

import sys
from collections.abc import Iterator, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic.fields import FieldInfo

from orchestrator.config.keys import sections
from orchestrator.jobs.job import Job
from orchestrator.jobs.registry import JOBS, job_class
from services.settings import EXTENDABLE, Settings, is_operational

_HEAD = """\
# Every config key

Made by `python -m orchestrator.config.reference` from the settings themselves; a test holds the
page to them. What a job does and reads is in [jobs.md](jobs.md).

A config is YAML with a key `job`. A key inside a block is written with dots on the command line:
`python orchestrator/run.py configs/sft.yaml train.batch_size=8`.

- **identity**: it changes what is computed. Another value is other work.
- **operational**: where, on what, how fast, how long. With another value a rerun goes on where it
  stood. Whatever lies in an operational block is operational.
- **extent**: a count. With a larger value a rerun goes on from where the smaller one ended.
"""
_TABLE = "\n| key | type | default | sort | meaning |\n|---|---|---|---|---|\n"
_TYPES = {str: "text", int: "integer", float: "number", bool: "true or false"}
_EVERY_JOB, _POLICY = "Every job", "Jobs that make a policy"

Block = type[Settings]


def config_page() -> str:
    """The whole page, as Markdown."""
    jobs = {name: job_class(name) for name in JOBS}
    used = _used(jobs)
    contents = [
        f"Jobs: {_links(jobs)}.\n",
        f"What they share: {_link(_EVERY_JOB)}, {_link(_POLICY)}.\n",
        f"Blocks: {_links(title_of(block) for block in used)}.\n",
    ]
    parts = [_HEAD, "\n", "\n".join(contents)]
    parts += [f"\n## {_EVERY_JOB}\n", _TABLE, *_rows(Job, {})]
    parts += [
        f"\n## {_POLICY}\n\nThey may be measured before and after.\n",
        _TABLE,
        *_rows(_base(jobs["sft"]), Job.model_fields),
    ]
    parts += ["\n## Jobs\n"]
    for name, job in jobs.items():
        above = _base(job)
        also = f" Also the keys of {_link(_EVERY_JOB, _EVERY_JOB.lower())}"
        if above is not Job:
            also += f" and of {_link(_POLICY, _POLICY.lower())}"
        parts += [f"\n### {name}\n\n{_described(job)}{also}.\n", *_table(job, above.model_fields)]
    parts += ["\n## Blocks\n"]
    for block, places in used.items():
        parts += [
            f"\n### {title_of(block)}\n\n{_described(block)}\n\n{_at(block, places)}\n",
            *_table(block, {}),
        ]
    return "".join(parts)


def meaning(field: FieldInfo) -> str:
    """The text under a field; of a block without one what the block itself is; or ""."""
    if field.description:
        return _escaped(" ".join(field.description.split()))
    within = list(sections(field))
    return _about(within[0]) if len(within) == 1 else ""


def keys_of(block: Block) -> Iterator[tuple[str, FieldInfo]]:
    """Its keys, without the tag by which it is chosen (`job: sft`, `kind: ondare`)."""
    for name, field in block.model_fields.items():
        if name != "job" and not (name == "kind" and _tag(block) and not field.description):
            yield name, field


def blocks() -> list[Block]:
    """Every block that a config may hold, in the order of the jobs; the jobs not among them."""
    return list(_used({name: job_class(name) for name in JOBS}))


def title_of(block: Block) -> str:
    """What the page calls a block."""
    return block.__name__.removesuffix("Settings")


def _base(job: type[Job]) -> type[Job]:
    """Job, or what the jobs that make a policy share: nothing here imports a job by itself."""
    return next(each for each in job.__mro__[1:] if issubclass(each, Job))


def _used(jobs: Mapping[str, type[Job]]) -> dict[Block, dict[str, None]]:
    """Every block, with the keys that it stands at."""
    found: dict[Block, dict[str, None]] = {}

    def walk(block: Block, owner: str) -> None:
        for name, field in block.model_fields.items():
            for inner in sections(field):
                new = inner not in found
                place = f"{owner}.{name}" if owner else name
                found.setdefault(inner, {})[place] = None
                if new:
                    walk(inner, title_of(inner))

    for job in jobs.values():
        walk(job, "")
    return found


def _table(block: Block, above: Mapping[str, FieldInfo]) -> list[str]:
    rows = list(_rows(block, above))
    return [_TABLE, *rows] if rows else []


def _rows(block: Block, above: Mapping[str, FieldInfo]) -> Iterator[str]:
    """A line for each key that is not the same as `above`."""
    for name, field in keys_of(block):
        other = above.get(name)
        if other is not None and _cells(other) == _cells(field):
            continue
        yield f"| `{name}` | {' | '.join(_cells(field))} |\n"


def _cells(field: FieldInfo) -> tuple[str, ...]:
    sort = "extent" if EXTENDABLE in field.metadata else "identity"
    sort = "operational" if is_operational(field) else sort
    cells = (_type(field.annotation) + _range(field), _default(field), sort, meaning(field))
    return tuple(cell.replace("|", "\\|") for cell in cells)


def _escaped(text: str) -> str:
    """As text that is no HTML; what stands in backticks is none anyway."""
    parts = text.split("`")
    return "`".join(each if at % 2 else each.replace("<", "&lt;") for at, each in enumerate(parts))


def _type(annotation: Any) -> str:
    """In words; a block by its link."""
    if isinstance(annotation, type) and issubclass(annotation, Job):
        return "a job"
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return _link(title_of(annotation))
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(inner[0])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in inner)
    if origin in (Union, UnionType):
        return " or ".join(_type(each) for each in inner if each is not NoneType)
    if origin is list:
        return f"list of {_type(inner[0])}"
    if origin is dict:
        return f"mapping of names to {_type(inner[1])}"
    return _TYPES[annotation]


def _range(field: FieldInfo) -> str:
    found = []
    for each in field.metadata:
        match each:
            case Ge(ge=bound):
                found.append(f"≥ {_number(bound)}")
            case Gt(gt=bound):
                found.append(f"> {_number(bound)}")
            case Le(le=bound):
                found.append(f"≤ {_number(bound)}")
            case Lt(lt=bound):
                found.append(f"&lt; {_number(bound)}")
            case MinLen(min_length=1):
                found.append("not empty")
            case _ if pattern := getattr(each, "pattern", None):
                found.append(f"like `{pattern}`")
    return ", " + ", ".join(found) if found else ""


def _number(bound: Any) -> str:
    return f"{int(bound):,}" if bound == int(bound) else f"{bound:g}"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    value = field.default
    if isinstance(value, Settings):
        return (
            f"`kind: {tag}`" if (tag := _tag(type(value))) and _several(field) else "its defaults"
        )
    if value is None:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return '`""`' if value == "" else f"`{value}`"


def _several(field: FieldInfo) -> bool:
    return len(list(sections(field))) > 1


def _about(block: Block) -> str:
    """The first paragraph of what it says of itself."""
    return _described(block).split("\n\n")[0]


def _described(block: Block) -> str:
    """All of it, a line each paragraph."""
    paragraphs = (block.__doc__ or "").split("\n\n")
    return "\n\n".join(_escaped(" ".join(each.split())) for each in paragraphs if each.strip())


def _tag(block: Block) -> str:
    """The one value of its `kind`; "" for a block that has none, or several."""
    field = block.model_fields.get("kind")
    values = get_args(field.annotation) if field is not None else ()
    return str(values[0]) if len(values) == 1 else ""


def _at(block: Block, places: Mapping[str, None]) -> str:
    """Where it stands, and by which tag it is chosen among others."""
    chosen = f"`kind: {_tag(block)}` at" if "kind" not in dict(keys_of(block)) else "At"
    return f"{chosen if _tag(block) else 'At'} {', '.join(f'`{place}`' for place in places)}."


def _links(titles: Any) -> str:
    return ", ".join(_link(title) for title in titles)


def _link(title: str, shown: str = "") -> str:
    return f"[{shown or title}](#{title.lower().replace(' ', '-')})"


if __name__ == "__main__":
    sys.stdout.write(config_page())
