"""What Ctrl-C and SIGTERM do to the command.

Before a run has begun there is little to end: the process ends. After that the first stops the run
in order, which takes seconds: its parts end, Ray too, the report is written. A second one ends the
process at once, and what it started: the local Ray is killed, the embedded Redis ends as its pipe
closes, processes on a cluster as their driver is gone. The same command goes on after either.
"""

import contextlib
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from types import FrameType
from typing import Any

from services.telemetry.log.lines import LogFormat, last_line

EXIT_CODE = 130
STOPPING = (
    "stopping: the run's processes end and its report is written, in a few seconds; a second Ctrl-C"
    " ends it at once; the same command goes on where it stood"
)
_INTERRUPTED = "interrupted; the same command goes on where it stood"
INTERRUPTED = f"pairloop: {_INTERRUPTED}"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SHOW_CURSOR = b"\x1b[?25h"


class Interrupts:
    """Handlers of both signals, from `listening` on; of the main thread."""

    def __init__(self) -> None:
        self._shown: LogFormat = "text"
        self._terminal = 2
        self._say: Callable[[str], None] | None = None
        self._cancel: Callable[[], None] | None = None
        self._asked = False
        self._begun = False
        self._held = False

    def speaks(self, shown: LogFormat) -> None:
        """From now on, so."""
        self._shown = shown

    def last_line(self) -> str:
        """What the process says when a signal ends it."""
        return last_line(_INTERRUPTED, self._shown, event="interrupted", level="warning")

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals; whoever had them before gets them back."""
        self._asked = self._begun = False
        before = [signal.signal(number, self._handle) for number in _SIGNALS]
        try:
            yield
        finally:
            for number, handler in zip(_SIGNALS, before, strict=True):
                signal.signal(number, handler)

    @contextlib.contextmanager
    def run_begun(self, say: Callable[[str], None], terminal: int) -> Iterator[None]:
        """From now on there is something to end.

        `say` shows the user a line; `terminal` is the descriptor for the last words of a process
        that is ended at once.
        """
        self._say, self._terminal, self._begun = say, terminal, True
        try:
            yield
        finally:
            self._say, self._terminal = None, 2

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """What must not be left half done: the first signal counts at its end."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self._asked:
            raise KeyboardInterrupt

    def complete(self, main: Coroutine[Any, Any, None]) -> None:
        """As asyncio.run. The first signal cancels `main`, and once that has ended (however it
        did) KeyboardInterrupt is raised; where it came too late to stop anything, nothing is.
        """
        import asyncio

        async def cancellable() -> None:
            task, loop = asyncio.current_task(), asyncio.get_running_loop()
            assert task is not None  # noqa: S101  a coroutine that runs has one

            def stop() -> None:
                self._speak()
                task.cancel()

            self._cancel = lambda: (loop.call_soon_threadsafe(stop), None)[1]
            try:
                await main
            finally:
                self._cancel = None

        try:
            asyncio.run(cancellable())
        except (asyncio.CancelledError, Exception) as error:
            if self._asked:
                raise KeyboardInterrupt from error
            raise

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._say is None or self._asked:
            self._end_at_once()
        self._asked = True
        if self._cancel is not None:
            # In the loop, where nobody is in the middle of writing a line.
            self._cancel()
            return
        self._speak()
        if not self._held:
            raise KeyboardInterrupt

    def _speak(self) -> None:
        if self._say is not None:
            with contextlib.suppress(RuntimeError):  # it was writing a line when the signal came
                self._say(STOPPING)

    def _end_at_once(self) -> None:
        with contextlib.suppress(OSError):
            if self._asked and os.isatty(self._terminal):
                os.write(self._terminal, _SHOW_CURSOR + b"\r\n")
            os.write(self._terminal, self.last_line().encode())
        try:
            from orchestrator.stages.children import kill_children

            kill_children(other_sessions=not self._begun)  # the trial call of a reward function
        finally:  # whatever the signal came in the middle of
            os._exit(EXIT_CODE)


interrupts = Interrupts()
"""One, as a process has one handler a signal."""
