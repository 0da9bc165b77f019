"""A tracker behind a bounded queue, in a thread of its own: the run never waits for it.

What does not fit is dropped; what fails is dropped. Either is told once.
"""

import queue
import threading
import time
from collections.abc import Callable

from services.errors import one_line
from services.telemetry.trackers.tracker import Outcome, Told, TrackedRun, Tracker

_ROOM = 2048
"""Calls that wait: about a quarter of an hour of a training at full speed."""

Call = Callable[[Tracker], None]


class Behind:
    """Made with the run; `start` once, `put` as often as wanted, `end` once."""

    def __init__(self, tracker: Tracker, run: TrackedRun, room: int = _ROOM) -> None:
        self._tracker = tracker
        self._run = run
        self._room = room
        self._calls: queue.SimpleQueue[tuple[Call, bool]] = queue.SimpleQueue()
        self._thread = threading.Thread(
            target=self._work, name=f"tracker-{tracker.name}", daemon=True
        )
        self._told: set[str] = set()
        self._trouble: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._given_up = threading.Event()

    def start(self) -> None:
        """Begin the tracker's run, in the thread."""
        self._thread.start()

    def put(self, told: Told) -> None:
        """Hand numbers over; returns at once."""
        if self._given_up.is_set():
            return
        if self._calls.qsize() >= self._room:
            self._say("full", "does not keep up; points are left out")
            return
        self._calls.put((lambda tracker: tracker.scalars(told), False))

    def trouble(self) -> list[str]:
        """What went wrong since the last call, one line each; each kind of trouble comes once."""
        found = []
        while not self._trouble.empty():
            found.append(self._trouble.get())
        return found

    def ask_end(self, outcome: Outcome) -> None:
        """End after what waits, which has room however much that is; `wait` then."""
        self._calls.put((lambda tracker: tracker.end(outcome), True))

    def wait(self, until: float) -> None:
        """Until it has ended, or the monotonic clock shows `until`."""
        self._thread.join(max(0.0, until - time.monotonic()))
        if self._thread.is_alive():
            self._say("late", "did not take in all before the run ended; its last points may lack")

    def _work(self) -> None:
        try:
            self._tracker.begin(self._run)
        except Exception as error:  # noqa: BLE001 - no tracker ends a run
            self._given_up.set()
            self._say("begin", f"cannot be used ({one_line(error)}); this run goes on without it")
            return
        last = False
        while not last:
            call, last = self._calls.get()
            try:
                call(self._tracker)
                if not last and self._calls.empty():
                    self._tracker.flush()
            except Exception as error:  # noqa: BLE001 - as above
                self._say("call", f"failed ({one_line(error)}); what it missed is left out")

    def _say(self, kind: str, text: str) -> None:
        if kind not in self._told:
            self._told.add(kind)
            self._trouble.put(f"{self._tracker.name} {text}")
