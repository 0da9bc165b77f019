"""TensorBoard event files: `tensorboard/<stage>/` in the run's folder."""

from pathlib import Path

from services.telemetry.trackers.tfevents import EventFile
from services.telemetry.trackers.tracker import Outcome, Told, TrackedRun


class TensorBoard:
    """A file a stage and attempt."""

    name = "tensorboard"

    def __init__(self) -> None:
        self._folder = Path()
        self._anew: frozenset[str] = frozenset()
        self._files: dict[str, EventFile] = {}

    def begin(self, run: TrackedRun) -> None:
        """Nothing is written before there are numbers."""
        self._folder, self._anew = run.folder / "tensorboard", run.anew

    def scalars(self, told: Told) -> None:
        """One event of all values."""
        file = self._files.get(told.stage) or self._open(told.stage)
        file.scalars(told.at, told.step, told.named())

    def flush(self) -> None:
        """To the files."""
        for file in self._files.values():
            file.flush()

    def end(self, outcome: Outcome) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()

    def _open(self, stage: str) -> EventFile:
        file = self._files[stage] = EventFile(self._folder / stage)
        if stage in self._anew:
            file.begin_at(0)
        return file
