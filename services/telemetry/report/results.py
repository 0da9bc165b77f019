"""The two files a run leaves for readers, summary.json and report.html: also while it goes on."""

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path

from services.states import State
from services.telemetry.record.events import (
    EpisodeChanged,
    EpisodeFinished,
    Event,
    PairExample,
    StageFinished,
)
from services.telemetry.record.state import RunState
from services.telemetry.report.report import write_report
from services.telemetry.report.summary import Extra, summary

_SHARE = 0.02
"""Of the time that writing may take: a run of thousands of episodes is written less often."""


def write_results(folder: Path, state: RunState, extra: Extra) -> None:
    """Both files, each whole or not at all. Raises OSError."""
    text = json.dumps(summary(state, extra), indent=2, allow_nan=False)
    partial = folder / "summary.json.partial"
    partial.write_text(text + "\n", encoding="utf-8")
    partial.rename(folder / "summary.json")
    write_report(folder, state, extra)


class LiveResults:
    """A listener that writes both files at the end of each stage and episode, and at a pause."""

    def __init__(
        self, folder: Path, extra: Extra, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder = folder
        self._extra: Extra = {**extra, "under_way": True}
        self._clock = clock
        self._next = clock()
        self._log = logging.getLogger(__name__)
        self._seen: tuple[str, int, State] | None = None

    def start(self) -> None:
        """Nothing is known yet."""

    def stop(self) -> None:
        """The last ones are written by who knows how the run ended."""

    def handle(self, event: Event, state: RunState) -> None:
        """Write when there is something new to read. A failure is no end of the run here."""
        if not self._worth(event, state):
            return
        started = self._clock()
        try:
            write_results(self._folder, state, self._extra)
        except Exception:  # noqa: BLE001 - a page that cannot be made is no end of the run
            # It is tried again, and the last try says what was wrong.
            self._log.warning("report.html and summary.json were not written", exc_info=True)
            return
        self._next = self._clock() + (self._clock() - started) / _SHARE

    def _worth(self, event: Event, state: RunState) -> bool:
        match event:
            case EpisodeChanged(state=State.PAUSED):
                now = (event.stage, event.number, event.state)
                new, self._seen = now != self._seen, now
                return new
            case EpisodeChanged():
                self._seen = None
            case PairExample():
                return state.held()
            case StageFinished():
                return not event.reused and self._clock() >= self._next
            case EpisodeFinished():
                return self._clock() >= self._next
        return False
