"""The run's trackers as one listener of its record.

record -> Tracking -> Points -> a queue a tracker -> its thread -> TensorBoard, W&B, MLflow
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from services.errors import Waiting
from services.telemetry.record.events import Event, Note
from services.telemetry.record.state import RunState
from services.telemetry.trackers.behind import Behind
from services.telemetry.trackers.kept import forget_runs, keep_stages, told_stages
from services.telemetry.trackers.mlflow import Mlflow
from services.telemetry.trackers.points import Points
from services.telemetry.trackers.settings import TrackerSettings
from services.telemetry.trackers.tensorboard import TensorBoard
from services.telemetry.trackers.tracker import Outcome, TrackedRun, Tracker
from services.telemetry.trackers.wandb import Wandb

_END_S = 10.0
"""What all trackers together get to take in the rest when the run has ended."""


def trackers_of(settings: TrackerSettings) -> list[Tracker]:
    """Those that are configured; none is imported or begun yet."""
    found: list[Tracker] = []
    if settings.tensorboard:
        found.append(TensorBoard())
    if settings.wandb is not None:
        found.append(Wandb(settings.wandb))
    if settings.mlflow is not None:
        found.append(Mlflow(settings.mlflow))
    return found


class Tracking:
    """The last of the listeners: what it has to say is said after the others know the event.

    `with tracking.telling(record): ...` inside the record's own `with`.
    """

    def __init__(self, trackers: Sequence[Tracker], run: TrackedRun, end_s: float = _END_S) -> None:
        self._trackers = trackers
        self._run = run
        self._end_s = end_s
        self._points = Points()
        self._behind: list[Behind] = []
        self._told: frozenset[str] = frozenset()
        self._report: Callable[[Event], None] | None = None

    @contextmanager
    def telling(self, report: Callable[[Event], None]) -> Iterator[None]:
        """Begin at the first event, end with the block; `report` takes warnings of trackers."""
        self._report = report
        outcome: Outcome = "failed"
        try:
            yield
            outcome = "finished"
        except Waiting:
            outcome = "waiting"
            raise
        except KeyboardInterrupt:
            outcome = "interrupted"
            raise
        finally:
            self._end(outcome)
            self._report = None

    def start(self) -> None:
        """Nothing is known of the attempts before yet."""

    def stop(self) -> None:
        """`telling` has ended before."""

    def handle(self, event: Event, state: RunState) -> None:
        """Hand on what is new in it."""
        if self._report is None or not self._trackers:
            return
        if not self._behind:
            self._begin(state)
        told = self._points.take(event, state)
        if told is not None:
            if told.stage not in self._told:
                self._told |= {told.stage}
                keep_stages(self._run.folder, self._told)
            for each in self._behind:
                each.put(told)
        self._warn()

    def _begin(self, state: RunState) -> None:
        """With the first event, before which `state` holds the attempts before alone."""
        self._told = told_stages(self._run.folder)
        if anew := self._told - state.stages.keys():
            forget_runs(self._run.folder)
            self._told -= anew
        self._points.go_on(state)
        run = replace(self._run, anew=anew)
        self._behind = [Behind(tracker, run) for tracker in self._trackers]
        for each in self._behind:
            each.start()

    def _end(self, outcome: Outcome) -> None:
        until = time.monotonic() + self._end_s
        for each in self._behind:
            each.ask_end(outcome)
        for each in self._behind:
            each.wait(until)
        self._warn()

    def _warn(self) -> None:
        for each in self._behind:
            for text in each.trouble():
                if self._report is not None:
                    self._report(Note(text=text, level="warning"))
