"""The memory plan against what there is: what is refused, what is warned of, and the table."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from orchestrator.checks.gpus import gpus
from orchestrator.checks.memory_plan import ORDER, StageMemory
from services.errors import ResourceError, UnreachableError
from services.memory_plan import GIB, Part, ProcessMemory

_TIGHT = 0.9
"""Of the memory there is: above it a run is warned."""
_NAMED = 3
_SMALL = 0.05 * GIB
""""0.0" in the table: not named."""

Place = Callable[[str, str], str]
"""place(stage, key): where the run's config holds a key of the stage."""


class Room(NamedTuple):
    """Bytes; None where it is not known from here."""

    host: int | None
    gpu: int | None
    """Of the smallest GPU."""


def gpu_memory() -> int | None:
    """Of this machine's smallest GPU, as its driver tells; None without one."""
    try:
        return min((each.memory for each in gpus()), default=None)
    except UnreachableError:
        return None


def check_memory(plans: Sequence[StageMemory], room: Room, place: Place) -> list[str]:
    """Warnings; ResourceError for a stage that does not fit, with what to lower."""
    for plan in plans:
        if room.host is not None and plan.needed > room.host:
            raise ResourceError(_too_much(plan, room.host, place))
        for process in plan.processes:
            if room.gpu is not None and _on_each_gpu(process) > room.gpu:
                raise ResourceError(_too_much_for_a_gpu(plan.key, process, room.gpu, place))
    tight = [plan for plan in plans if room.host and plan.needed > _TIGHT * room.host]
    return [
        f"{plan.key} will take about {_gib(plan.needed)} of the {_gib(room.host or 0)} GiB of"
        " memory there is: leave the machine to it, or lower"
        f" {' or '.join(_advice(plan.key, plan.processes, place)[:2]) or 'the model'}"
        for plan in tight
    ]


def memory_table(plans: Sequence[StageMemory], room: Room, numbers: Sequence[int]) -> list[str]:
    """Lines: every stage at its fullest moment, then the fullest stage part by part.

    `numbers` are the places of the stages in the run.
    """
    if not plans:
        return []
    known = [plan for plan in plans if not plan.unknown]
    lines = [f"Memory of each stage at its fullest, GiB ({_there_is(room)}):"]
    there = {process.name for plan in known for process in plan.processes}
    names = [name for name in ORDER if name in there]
    width = max(len(plan.key) for plan in plans)
    if known:
        lines.append("   " + "stage".ljust(width) + _row(["all", *names], ["all", *names]))
    for number, plan in zip(numbers, plans, strict=True):
        start = f"{number:>2} {plan.key.ljust(width)}"
        if plan.unknown:
            lines.append(f"{start}  not known before {plan.unknown} is fetched")
            continue
        by_name = {process.name: process for process in plan.processes}
        cells = [_gib(plan.host), *(_cell(by_name.get(name)) for name in names)]
        lines.append(start + _row(["all", *names], cells))
    if known:
        fullest = max(known, key=lambda plan: plan.host)
        together = sum(process.count * process.host for process in fullest.processes)
        once = " (+: in turn, the larger one counts)" if together > fullest.host else ""
        lines += [f"{fullest.key}, part by part{once}:", *_parts(fullest)]
    lines += [f"Redis holds {plan.redis} of {plan.key}" for plan in known if plan.redis]
    return lines


def _parts(plan: StageMemory) -> Iterator[str]:
    for process in plan.processes:
        many = f"{process.count} x " if process.count > 1 else ""
        for on_gpu in (False, True):
            parts = [part for part in process.parts if part.on_gpu is on_gpu and part.bytes]
            if not parts:
                continue
            total = _on_each_gpu(process) if on_gpu else process.host
            where = " on each GPU" if on_gpu else ""
            shown = [part for part in _largest(parts) if part.bytes > _SMALL] or _largest(parts)[:1]
            listed = [f"{'+' * part.passing}{part.name} {_gib(part.bytes)}" for part in shown]
            one = ", ".join(listed) if len(parts) > 1 else parts[0].name
            yield f"   {process.name}{where} {many}{_gib(total)}: {one}"


def _there_is(room: Room) -> str:
    host = "the cluster's machines are not asked" if room.host is None else ""
    gpu = f"; its GPU {_gib(room.gpu)}" if room.gpu else ""
    return host or f"this machine has {_gib(room.host or 0)}{gpu}"


def _row(names: Sequence[str], cells: Sequence[str]) -> str:
    return "".join(
        cell.rjust(max(len(name), 4) + 2) for name, cell in zip(names, cells, strict=True)
    )


def _cell(process: ProcessMemory | None) -> str:
    return "-" if process is None else _gib(process.count * process.host)


def _too_much(plan: StageMemory, limit: int, place: Place) -> str:
    processes = sorted(plan.processes, key=lambda each: -each.count * each.host)
    first, *others = processes
    parts = _largest([part for part in first.parts if not (part.on_gpu or part.mapped)])
    inside = ", ".join(f"{part.name} {_gib(part.bytes)}" for part in parts[:2])
    named = [f"{first.name} {_cell(first)} ({inside})"]
    named += [f"{each.name} {_cell(each)}" for each in others[:1]]
    return (
        f"{plan.key} would take {_gib(plan.needed)} GiB of memory, this machine has"
        f" {_gib(limit)}: {', '.join(named)}; lower {_or(_advice(plan.key, processes, place))}"
    )


def _too_much_for_a_gpu(key: str, process: ProcessMemory, limit: int, place: Place) -> str:
    parts = _largest([part for part in process.parts if part.on_gpu])
    inside = ", ".join(f"{part.name} {_gib(part.bytes)}" for part in parts[:_NAMED])
    advice = _advice(key, [process], place, on_gpu=True)
    return (
        f"{key}: the {process.name} would take {_gib(_on_each_gpu(process))} GiB of each GPU and"
        f" there are {_gib(limit)}: {inside}; lower {_or(advice)}"
    )


def _advice(
    stage: str, processes: Sequence[ProcessMemory], place: Place, *, on_gpu: bool = False
) -> list[str]:
    """Settings that make it smaller on the host or on a GPU, those of the largest parts first."""
    parts = [
        (process.count * part.bytes, part)
        for process in processes
        for part in process.parts
        if part.lower and part.on_gpu is on_gpu
    ]
    settings = [part.lower for _, part in sorted(parts, key=lambda each: -each[0])]
    return [place(stage, setting) for setting in dict.fromkeys(settings)][:_NAMED]


def _or(settings: Sequence[str]) -> str:
    return ", ".join(settings) or "the model, or take a larger machine"


def _largest(parts: Sequence[Part]) -> list[Part]:
    return sorted(parts, key=lambda part: -part.bytes)


def _on_each_gpu(process: ProcessMemory) -> int:
    return math.ceil(process.on_gpu / max(1.0, process.gpus))


def _gib(size: int) -> str:
    return f"{size / GIB:.1f}"
