"""What glibc's allocator does with memory that is freed, set for this process alone.

Each tensor above some size goes back to the kernel when it is freed and is fetched again, page by
page, for the next one: on a CPU that costs a training step more than its arithmetic does. A
process that keeps it instead holds its peak for good: right for the learner, whose every step
needs its peak, and wrong for all others.
"""

import contextlib
import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8  # malloc.h


def keep_freed_memory() -> None:
    """Keep what is freed, for the next tensor of any thread; before the first large tensor."""
    with contextlib.suppress(OSError, AttributeError):  # not glibc: as it is
        glibc = ctypes.CDLL(None)
        # One arena: what another thread than the first allocates would be given back all the same.
        glibc.mallopt(_ARENA_MAX, 1)
        glibc.mallopt(_MMAP_THRESHOLD, 2**31 - 1)
        glibc.mallopt(_TRIM_THRESHOLD, -1)
        glibc.mallopt(_TOP_PAD, 256 * 2**20)


def give_back_freed_memory() -> None:
    """Give the kernel what is free, after something large is done that is not done again soon."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
