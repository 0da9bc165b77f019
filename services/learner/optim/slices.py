"""A tensor's slices, each done whole by one thread.

A dozen operations on half a million values are too little for each of them to be shared out among
cores: they would wait for each other at every one, and where other programs run, for these as well.
So a thread takes a slice through all of them alone.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

SLICE_VALUES = {"cpu": 1 << 19}
"""2 MiB of float32: the half dozen that a step works on stay in the cache (bench/omo_step.py).
Every length here is a multiple of what masks and 8-bit codes are blocked by."""
_ON_A_DEVICE = 1 << 25
_MOST_THREADS = 8
"""Beyond, they would wait for the interpreter."""
Part = TypeVar("Part")
Result = TypeVar("Result")


def slices(tensor: Tensor) -> list[slice]:
    """Of the tensor laid out flat."""
    length, count = SLICE_VALUES.get(tensor.device.type, _ON_A_DEVICE), tensor.numel()
    return [slice(start, min(start + length, count)) for start in range(0, count, length)]


class SliceThreads:
    """As many threads as torch has, each computing alone; none where there is one part."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None

    @contextmanager
    def each_alone(self) -> Iterator[None]:
        """While in it, torch computes with one thread in every thread that starts here."""
        threads = torch.get_num_threads()
        if self._pool is None and threads > 1:
            workers = min(threads, _MOST_THREADS, os.cpu_count() or 1)
            self._pool = ThreadPoolExecutor(workers, "optimizer")
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)

    def map(self, do: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
        """The results in the order of the parts, without gradients."""

        def quietly(part: Part) -> Result:
            # Whether gradients are recorded is each thread's own.
            with torch.no_grad():
                return do(part)

        if self._pool is None or len(parts) < 2:
            return [quietly(part) for part in parts]
        return list(self._pool.map(quietly, parts))
