"""Memory of this machine: what a run would take, the peak of what it took, who ran out of it."""

import threading
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

from services.errors import ResourceError, WorkerDiedError
from services.out_of_memory import GIB, Usage, out_of_memory
from services.rollout.settings import EngineSettings

_FULL = 0.95
"""Of the limit: a process that died with the run above this is taken for killed by the kernel."""
_SHARE = 0.02
"""Of the time that looking may take: a large process's pages are slow to count, and where all
cores compute, what takes one of them is waited for by the others."""


def check_kv_cache(engines: Iterable[EngineSettings]) -> None:
    """ResourceError when CPU engines ask for more KV cache than this machine has memory."""
    total = memory_limit() / GIB
    for engine in engines:
        wanted = engine.workers * engine.kv_cache_gib
        if not engine.num_gpus and wanted > total:
            raise ResourceError(
                f"engine.workers={engine.workers} x engine.kv_cache_gib={engine.kv_cache_gib:g} is"
                f" {wanted:g} GiB of KV cache, this machine has {total:.0f} GiB of memory; lower"
                " one of them"
            )


def memory_limit(root: Path = Path("/")) -> int:
    """Bytes this process and its children may use: the machine's, or less by its cgroup (1 or 2).

    `root` is where proc and sys are.
    """
    found: list[int] = [psutil.virtual_memory().total]
    for path in _cgroup_files(root, "memory.max", "memory.limit_in_bytes"):
        text = path.read_text(encoding="utf-8").strip()
        found += [int(text)] if text.isdigit() else []  # "max": none
    return min(found)


def kernel_kills(root: Path = Path("/")) -> int:
    """Processes the kernel has killed for lack of memory, on this machine or in its cgroup."""
    count = 0
    counters = [root / "proc/vmstat", *_cgroup_files(root, "memory.events", "memory.oom_control")]
    for path in counters:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except OSError:
            continue
        count += sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    return count


class MemoryWatch:
    """Of the driver and every process below it.

    `with MemoryWatch() as memory: ...; memory.peak_bytes`. Looks every two seconds, or less
    often where looking is slow; sums the proportional set size, which counts a page shared by n
    processes once, not n times.
    """

    def __init__(self, every_s: float = 2.0) -> None:
        self.peak_bytes = 0
        self.largest: Usage | None = None
        """The largest process at the peak."""
        self._kills = kernel_kills()
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)

    def __enter__(self) -> "MemoryWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=10.0)

    def see(self, usages: Iterable[Usage]) -> None:
        """Take note of what the processes hold at one moment."""
        now = list(usages)
        total = sum(usage.bytes for usage in now)
        if total > self.peak_bytes:
            self.peak_bytes = total
            self.largest = max(now, key=lambda usage: usage.bytes)

    def killed(self, error: WorkerDiedError, limit: int, kills: int) -> ResourceError | None:
        """What is said of a death when it was for lack of memory; None when nothing points there.

        Nobody tells who ended a process. It was the kernel when it has killed one since the watch
        began (`kills` is its count by now), or when the run stood at its `limit` in bytes.
        """
        if kills <= self._kills and self.peak_bytes < _FULL * limit:
            return None
        who = str(error).partition(" died: ")[0]
        return out_of_memory(who, self.largest, limit)

    def _watch(self) -> None:
        took = 0.0
        while not self._stop.wait(max(self._every_s, took / _SHARE)):
            began = time.monotonic()
            self.see(_usages())
            took = time.monotonic() - began


def _usages() -> Iterable[Usage]:
    own = psutil.Process()
    for process in [own, *own.children(recursive=True)]:
        try:
            yield Usage(" ".join(process.cmdline()), process.memory_full_info().pss)
        except psutil.Error:  # ended meanwhile
            continue


def _cgroup_files(root: Path, second: str, first: str) -> list[Path]:
    """Files of this name in every cgroup above this process: of version 2, and of version 1."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []  # no Linux
    found = []
    for line in lines:
        _, controllers, place = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top, name = ("sys/fs/cgroup/memory", first) if controllers else ("sys/fs/cgroup", second)
        folder = root / top / place.strip("/")
        while (root / top) == folder or (root / top) in folder.parents:
            # In a container the path is the host's, and only its top is there to be read.
            if (folder / name).is_file():
                found.append(folder / name)
            folder = folder.parent
    return found
