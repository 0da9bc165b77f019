"""Takes the run's events: one JSON line each in metrics.jsonl, the RunState, the listeners."""

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol, Self, cast

from pydantic import ValidationError

from services.full_disk import is_full
from services.telemetry.format import redact
from services.telemetry.record.doubts import NOT_FINITE, Doubt, doubts
from services.telemetry.record.events import (
    EVENT,
    EpisodeChanged,
    EpisodeFinished,
    Evaluated,
    Event,
    Note,
    StageFinished,
    StageWaiting,
)
from services.telemetry.record.reduce import apply
from services.telemetry.record.state import RunState


class Listener(Protocol):
    """Shows events as they come: the live view, the plain one."""

    def start(self) -> None:
        """Called once, before the first event."""

    def handle(self, event: Event, state: RunState) -> None:
        """Called after `state` has taken the event in."""

    def stop(self) -> None:
        """Called once, however the run ended."""


class Recorder:
    """`with Recorder(folder, [view]) as record: record(event)`.

    A folder that holds a metrics.jsonl is a run that goes on: its events are replayed into
    `state` first, without the listeners. A last line torn by a crash is cut off; lines that
    are no events, or those of an older version, are skipped and said so in one note. Numbers that
    are not finite are left out of the record. Of these, and of what else is doubtful in the numbers
    (record/doubts.py), a warning is recorded once. What a full disk has no room for is written when
    it has.
    """

    def __init__(
        self,
        folder: Path,
        listeners: Sequence[Listener] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = folder / "metrics.jsonl"
        self.state = RunState()
        self._listeners = list(listeners)
        self._started: list[Listener] = []
        self._clock = clock
        self._file: BinaryIO | None = None
        self._unwritten = b""
        """What a full disk has no room for yet."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Replay what the folder holds, open the file, start the listeners."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _cut_torn_line(self.path)
        unread = self._replay()
        self._file = cast(BinaryIO, self.path.open("ab", buffering=0))
        for listener in self._listeners:
            listener.start()
            self._started.append(listener)
        if unread:
            self(Note(text=_skipped(self.path.name, unread)))

    def __call__(self, event: Event) -> None:
        """Record one event and show it."""
        file = self._file
        if file is None:
            raise ValueError("the recorder is not started; use it in a with statement")
        clean, lost = _finite(event)
        self._take(_hide_passwords(clean), file)
        for name in lost:
            self._warn_once(Doubt(event.stage, NOT_FINITE + name, f"{name} is not finite"), file)
        if isinstance(event, EpisodeFinished | Evaluated | StageFinished):
            for each in doubts(self.state):
                self._warn_once(each, file)

    def stop(self) -> None:
        """Stop the listeners, close the file. May be called twice."""
        while self._started:
            self._started.pop().stop()
        if self._file is not None:
            self._write(self._file)
            self._file.close()
            self._file = None

    def _warn_once(self, doubt: Doubt, file: BinaryIO) -> None:
        """A warning, once a stage; a run that goes on does not tell it again."""
        if all((note.stage, note.doubt) != (doubt.stage, doubt.kind) for note in self.state.notes):
            text, kind = doubt.text, doubt.kind
            self._take(Note(stage=doubt.stage, text=text, level="warning", doubt=kind), file)

    def _take(self, event: Event, file: BinaryIO) -> None:
        now = round(self._clock(), 3)
        line = {"time": now, **event.model_dump(mode="json")}
        waited = bool(self._unwritten)
        self._unwritten += f"{json.dumps(line, ensure_ascii=False, allow_nan=False)}\n".encode()
        self._write(file)
        apply(self.state, event, now)
        for listener in self._started:
            listener.handle(event, self.state)
        if self._unwritten and not waited:
            text = f"the disk of {self.path.name} is full: what happens is written when it has room"
            self._take(Note(text=text, level="warning"), file)

    def _write(self, file: BinaryIO) -> None:
        """A system without room may take a part of it."""
        try:
            while self._unwritten:
                self._unwritten = self._unwritten[file.write(self._unwritten) :]
        except OSError as error:
            if not is_full(error):
                raise

    def _replay(self) -> list[int]:
        """Take in the events of the attempts before; returns the lines that are none."""
        if not self.path.exists():
            return []
        unread = []
        with self.path.open(encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    at, event = read_line(line)
                except (ValueError, ValidationError):
                    unread.append(number)
                    continue
                apply(self.state, event, at)
        return unread


def read_line(line: str) -> tuple[float, Event]:
    """Wall time and event of one line of metrics.jsonl. Raises ValueError."""
    row = json.loads(line)
    if not isinstance(row, dict):
        raise ValueError("not an object")
    at = row.pop("time", 0.0)
    if not isinstance(at, int | float):
        raise ValueError("time is not a number")
    return float(at), EVENT.validate_python(row)


def _skipped(name: str, lines: list[int]) -> str:
    if len(lines) == 1:
        return f"{name}: line {lines[0]} is no event of this version; skipped"
    first = f"the first is line {lines[0]}"
    return f"{name}: {len(lines)} lines are no events of this version ({first}); skipped"


def _cut_torn_line(path: Path) -> None:
    """Drop what follows the last line end: a crash wrote it half."""
    if not path.exists():
        return
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end != len(content):
        with path.open("r+b") as file:
            file.truncate(end)


def _hide_passwords(event: Event) -> Event:
    if isinstance(event, Note):
        return event.model_copy(update={"text": redact(event.text)})
    if isinstance(event, EpisodeChanged | StageWaiting) and event.reason:
        return event.model_copy(update={"reason": redact(event.reason)})
    return event


def _finite(event: Event) -> tuple[Event, list[str]]:
    """The event without its non-finite numbers, and their names.

    An event that cannot be without them becomes a warning.
    """
    row = event.model_dump()
    lost = _drop_non_finite(row)
    if not lost:
        return event, []
    try:
        return EVENT.validate_python(row), lost
    except ValidationError:
        text = f"{event.kind} left out: {', '.join(lost)} is not finite"
        return Note(stage=event.stage, text=text, level="warning"), []


def _drop_non_finite(row: dict[str, Any]) -> list[str]:
    lost = []
    for name, value in list(row.items()):
        if isinstance(value, dict):
            lost += _drop_non_finite(value)
        elif any(isinstance(x, float) and not math.isfinite(x) for x in _each(value)):
            del row[name]
            lost.append(name)
    return lost


def _each(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)
