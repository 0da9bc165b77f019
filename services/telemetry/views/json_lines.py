"""The run as JSON lines: what the plain view says, with the event's fields and numbers."""

import io
import re
import sys
import time
from collections.abc import Callable
from typing import IO

from services.telemetry.flat import flattened
from services.telemetry.log.lines import Level, json_line
from services.telemetry.record.events import EpisodeChanged, EpisodeFinished, Event, Note
from services.telemetry.record.state import RunState
from services.telemetry.views.plain import PlainView

_WARNING = "warning: "
_WORKER = re.compile(r"\b(?:rollout|pairs|learner)-\d+\b")
_NO_NUMBERS = {"number", "total", "index"}


class JsonView:
    """One object for every line of the plain view."""

    def __init__(
        self,
        stream: IO[str] | None = None,
        run: str = "",
        every_s: float = 8.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream if stream is not None else sys.stdout
        self._run = run
        self._said = io.StringIO()
        self._plain = PlainView(self._said, every_s, clock)

    def start(self) -> None:
        """Nothing to set up."""

    def stop(self) -> None:
        """Leave nothing in the buffer."""
        self._stream.flush()

    def handle(self, event: Event, state: RunState) -> None:
        """Write the event's line, where it has one."""
        self._plain.handle(event, state)
        for line in self._said.getvalue().splitlines():
            self._write(line, event, state)
        self._said.seek(0)
        self._said.truncate()

    def _write(self, line: str, event: Event, state: RunState) -> None:
        level: Level = "warning" if line.startswith(_WARNING) else "info"
        worker = _WORKER.search(line) if isinstance(event, Note) else None
        episode = event.number if isinstance(event, EpisodeChanged | EpisodeFinished) else 0
        self._stream.write(
            json_line(
                line.removeprefix(_WARNING),
                event=event.kind,
                level=level,
                at=state.last_at,
                numbers=_numbers(event),
                run=self._run,
                stage=event.stage,
                episode=episode,
                worker=worker.group() if worker else "",
            )
        )
        self._stream.flush()


def _numbers(event: Event) -> dict[str, float]:
    """The event's, by name; those of its metrics stand beside its own."""
    return {
        name.removeprefix("metrics."): value
        for name, value in flattened(event.model_dump(exclude=_NO_NUMBERS)).items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
