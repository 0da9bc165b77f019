"""Peak memory of a run on this machine: the driver and every process below it."""

import threading

import psutil


class MemoryWatch:
    """`with MemoryWatch() as memory: ...; memory.peak_bytes`. Looks every two seconds.

    Sums the proportional set size, which counts a page shared by n processes once, not n times.
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
