"""What libraries print goes into a file of the run, not between the lines of its view."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def stderr_to(log: Path) -> Iterator[int]:
    """Standard error into `log` for the while; gives a descriptor of where it went before.

    gRPC, abseil and Ray write to descriptor 2 from C++, whatever sys.stderr is. The descriptor
    counts for the processes that are started meanwhile as well. A log that stays empty is removed.
    """
    sys.stderr.flush()
    before = os.dup(2)
    try:
        with log.open("wb") as file:
            os.dup2(file.fileno(), 2)
        yield before
    finally:
        sys.stderr.flush()
        os.dup2(before, 2)
        os.close(before)
        with contextlib.suppress(OSError):
            if not log.stat().st_size:
                log.unlink()
