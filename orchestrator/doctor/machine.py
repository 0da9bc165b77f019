"""This machine: memory, GPUs, shared memory, disk, open files."""

import os
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

from orchestrator.checks.gpus import gpus
from orchestrator.checks.memory import memory_limit
from orchestrator.checks.memory_plan import object_store_bytes
from orchestrator.checks.room import disk_bytes, gpus_needed
from orchestrator.doctor.finding import Finding, problem_of
from orchestrator.doctor.subject import Subject
from orchestrator.doctor.versions import installed
from orchestrator.stages.cluster import store_room
from services.errors import UnreachableError
from services.telemetry.format import size

SHARED = Path("/dev/shm")  # noqa: S108  Linux's shared memory, which Ray's object store takes
_RAY_REFUSES = 10**10
"""Bytes: a larger object store Ray does not put on a disk (REQUIRE_SHM_SIZE_THRESHOLD)."""
_FILES = 4096
_FILES_WELL = 65_536
"""Open files: below the first Ray warns; up to the second it raises the limit by itself."""
_ROOM = 2**30
_ROOM_WELL = 10 * 2**30
"""Bytes on disk: what any run writes, and what leaves room for checkpoints of a small model."""


def check_cpu(subject: Subject) -> Iterator[Finding]:
    """Cores and memory; whether the memory is enough, the plan says."""
    cores = len(os.sched_getaffinity(0))
    yield Finding("machine", "ok", f"{cores} cores, {size(memory_limit())} of memory")


def check_gpus(subject: Subject) -> Iterator[Finding]:
    """Those that the driver names, against what the stages reserve at once."""
    try:
        found = gpus()
    except UnreachableError as error:
        yield problem_of("gpus", error, "mend the driver")
        return
    needed = {} if subject.cluster else {k: gpus_needed(job) for k, job in subject.stages.items()}
    stage = max(needed, key=lambda key: needed[key], default="")
    most = needed.get(stage, 0.0)
    text = "none"
    if found:
        kinds = dict.fromkeys(f"{each.name}, {size(each.memory)}" for each in found)
        text = f"{len(found)} ({'; '.join(kinds)}), driver {found[0].driver}"
    if most > len(found):
        yield Finding(
            "gpus",
            "problem",
            f"{text}; {stage} reserves {most:g} at once",
            "lower workers or num_gpus of engine, train or reward, or take a larger machine",
        )
    elif most and not installed("vllm") and subject.samples:
        yield Finding(
            "gpus", "problem", f"{text}, and vLLM's CPU build", "install the extra gpu, not cpu"
        )
    elif found and not most and not subject.cluster:
        unused = "this config uses none" if subject.job else ""
        yield Finding("gpus", "ok", f"{text}; {unused}" if unused else text)
    else:
        yield Finding("gpus", "ok", text if found else f"{text}: everything runs on the CPU")


def check_shared_memory(subject: Subject) -> Iterator[Finding]:
    """What a local Ray's object store takes of it."""
    if subject.cluster:
        return
    yield shared_memory(store_room(subject.ray, object_store_bytes(subject.stages)))


def shared_memory(wanted: int, free: int | None = None) -> Finding:
    """`wanted` bytes against what is free; by default as it is here."""
    if free is None:
        if not SHARED.is_dir():
            return Finding("shared memory", "ok", f"there is no {SHARED}: Ray uses a file")
        free = shutil.disk_usage(SHARED).free
    text = f"{SHARED} has {size(free)} free, Ray's object store takes {size(wanted)}"
    if free >= wanted:
        return Finding("shared memory", "ok", text)
    advice = (
        "give the container more (docker run --shm-size, an emptyDir of medium Memory on"
        " Kubernetes), or lower ray.object_store_gib"
    )
    if wanted > _RAY_REFUSES:
        return Finding("shared memory", "problem", f"{text}: Ray would refuse to start", advice)
    return Finding("shared memory", "warning", f"{text}: it would lie on disk, and be slow", advice)


def check_disk(subject: Subject) -> Iterator[Finding]:
    """Room in the run's folder, and whether it may be written."""
    there = subject.folder.absolute()
    while not there.exists():
        there = there.parent
    if not there.is_dir() or not os.access(there, os.W_OK):
        text = f"{subject.folder} cannot be made: {there} is not to be written"
        yield Finding("disk", "problem", text, "set output to a folder that is yours")
        return
    yield disk(str(subject.folder), shutil.disk_usage(there).free, disk_bytes(subject.stages))


def disk(folder: str, free: int, wanted: int) -> Finding:
    """`wanted` bytes, as estimated, against those that are free."""
    text = f"{folder}: {size(free)} free"
    if wanted:
        text += f", checkpoints and models take about {size(wanted)}"
    advice = "make room, or set output to a folder on a larger disk"
    if free < max(wanted, _ROOM):
        return Finding("disk", "problem", text, advice)
    if free < max(2 * wanted, _ROOM_WELL):
        return Finding("disk", "warning", text, advice)
    return Finding("disk", "ok", text)


def check_files(subject: Subject) -> Iterator[Finding]:
    """The limit on open files, which Ray raises as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield open_files(soft, hard)


def open_files(soft: int, hard: int) -> Finding:
    """As `getrlimit` tells them."""
    if soft == resource.RLIM_INFINITY:
        return Finding("open files", "ok", "no limit")
    most = _FILES_WELL if hard == resource.RLIM_INFINITY else min(hard, _FILES_WELL)
    reached = max(soft, most)
    text = f"{soft}, and Ray raises it to {reached}" if reached > soft else f"{soft}"
    if reached < _FILES:
        advice = f"ulimit -n {_FILES_WELL}, as root or in the container's settings"
        return Finding("open files", "warning", f"{text}: connections may fail", advice)
    return Finding("open files", "ok", text)
