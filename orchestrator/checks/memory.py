"""Memory of this machine: what a run would take, and the peak of what it took."""

import threading
from collections.abc import Iterable

import psutil

from services.errors import ResourceError
from services.rollout.settings import EngineSettings

_GIB = 2**30


def check_kv_cache(engines: Iterable[EngineSettings]) -> None:
    """ResourceError when CPU engines ask for more KV cache than this machine has memory."""
    total = psutil.virtual_memory().total / _GIB
    for engine in engines:
        wanted = engine.workers * engine.kv_cache_gib
        if not engine.num_gpus and wanted > total:
            raise ResourceError(
                f"engine.workers={engine.workers} x engine.kv_cache_gib={engine.kv_cache_gib:g} is"
                f" {wanted:g} GiB of KV cache, this machine has {total:.0f} GiB of memory; lower"
                " one of them"
            )


class MemoryWatch:
    """Of the driver and every process below it.

    `with MemoryWatch() as memory: ...; memory.peak_bytes`. Looks every two seconds; sums the
    proportional set size, which counts a page shared by n processes once, not n times.
    """

    def __init__(self, every_s: float = 2.0) -> None:
        self.peak_bytes = 0
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)

    def __enter__(self) -> "MemoryWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=10.0)

    def _watch(self) -> None:
        while not self._stop.wait(self._every_s):
            self.peak_bytes = max(self.peak_bytes, _proportional_bytes())


def _proportional_bytes() -> int:
    own = psutil.Process()
    total = 0
    for process in [own, *own.children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except psutil.Error:  # ended meanwhile
            continue
    return total
