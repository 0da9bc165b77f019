"""Importing thousands of modules at once: what starting a process here mostly is."""

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_ONE_AT_A_TIME = threading.Lock()


@contextmanager
def heavy_imports() -> Iterator[None]:
    """`with heavy_imports(): import ...`, for imports that take a second or more.

    The garbage collector rests meanwhile, and leaves alone later what has come: it would walk
    everything that is loaded, many times, and find nothing (a fifth of the CPU time). One thread
    at a time, as two that import the same modules at once may find them half done.
    """
    with _ONE_AT_A_TIME:
        was_on = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            gc.freeze()
            if was_on:
                gc.enable()
