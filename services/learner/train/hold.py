"""A training that is held between two steps, as its run is paused or about to stop: it writes a
checkpoint, says so, and waits.

The orchestrator asks by a file, and hears of it by another beside it: both lie on storage that
every rank sees and outlive the orchestrator. The leading worker looks; the others wait with it.
"""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.learner.train.distributed import Worker

_LOOK_S = 0.25
_BROADCAST_EVERY_S = 2.0
"""The others hear from the leading worker at least so often: a collective has a deadline."""


class Hold:
    """Of one training; `file` None: it is never held."""

    def __init__(
        self,
        file: Path | None,
        worker: "Worker",
        tell: Callable[[bool], None] = lambda held: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`tell` is called by the leading worker as the training is held, and as it goes on."""
        self._file, self._worker, self._tell = file, worker, tell
        self._clock, self._sleep = clock, sleep
        self.seconds = 0.0
        """In which nothing was done."""

    def worked(self) -> float:
        """A clock that stands still meanwhile, in seconds; only differences count."""
        return self._clock() - self.seconds

    def after_step(self, step: int, save: Callable[[], None]) -> None:
        """Return at once, unless somebody holds the training; `save` keeps what was done so far.

        Every worker calls it after every step.
        """
        if self._file is None or not self._asked():
            return
        began = self._clock()
        if self._worker.is_main:
            save()
            with contextlib.suppress(OSError):  # who waits for it has a deadline
                held_at(self._file).write_text(str(step), encoding="utf-8")
            self._tell(True)
        while self._asked(patience_s=_BROADCAST_EVERY_S):
            pass
        self.seconds += self._clock() - began
        if self._worker.is_main:
            held_at(self._file).unlink(missing_ok=True)
            self._tell(False)

    def _asked(self, patience_s: float = 0.0) -> bool:
        """Whether the file is there, on every worker alike; while it is, so long at most."""
        there = False
        if self._worker.is_main and self._file is not None:
            until = self._clock() + patience_s
            while (there := self._file.exists()) and self._clock() < until:
                self._sleep(_LOOK_S)
        return bool(self._worker.broadcast(int(there)))


def held_at(file: Path) -> Path:
    """Where a training that is held by a file says so: the step it is at."""
    return file.with_name(f"{file.name}.held")
