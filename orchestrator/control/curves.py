"""A run's curves from metrics.jsonl, which is read on from where it was read before."""

import threading
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from orchestrator.control.run_folder import RunFolder
from pairloop.admin.v1.admin_pb2 import Curve
from services.telemetry.record.recorder import read_line
from services.telemetry.record.reduce import apply
from services.telemetry.record.state import RunState, Stage
from services.telemetry.report.figures import laid_out

_POINTS = 300
_TAIL = 4096
"""Bytes by which a file that was read is known again."""
_KIND = 80
"""Within so many bytes a line says what it is."""


class CurveReader:
    """Of one run; for any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._curves: list[Curve] = []
        self._begin()

    def curves(self, folder: RunFolder) -> Sequence[Curve]:
        """Every stage's, in their order. Raises StateError as RunFolder.opened."""
        file = folder.opened(folder.path / "metrics.jsonl")
        if file is None:
            return []
        with file, self._lock:
            file.seek(max(0, self._read - len(self._tail)))
            if file.read(len(self._tail)) != self._tail:  # begun anew without some stages
                self._begin()
            before = self._read
            self._take(file)
            if self._read != before:
                self._curves = [each for stage in self._state.ordered() for each in _of(stage)]
            return self._curves

    def _begin(self) -> None:
        self._state, self._read, self._tail = RunState(), 0, b""
        self._curves = []

    def _take(self, file: BinaryIO) -> None:
        file.seek(self._read)
        for line in file:
            if not line.endswith(b"\n"):
                return  # it is being written
            self._read += len(line)
            self._tail = (self._tail + line)[-_TAIL:]
            if b'"pair_example"' in line[:_KIND]:
                continue  # texts, and no curve
            try:
                at, event = read_line(line.decode("utf-8", errors="replace"))
            except (ValueError, RecursionError):
                continue  # of another version
            apply(self._state, event, at)


def _of(stage: Stage) -> Iterator[Curve]:
    for name in dict.fromkeys(name for point in stage.curve for name in point.metrics):
        yield _thinned(stage.name, name, "step", *laid_out(stage.curve, name))
    done = stage.finished_episodes()
    for name in dict.fromkeys(name for episode in done for name in episode.metrics):
        with_it = [episode for episode in done if name in episode.metrics]
        yield _thinned(
            stage.name,
            name,
            "episode",
            [float(episode.number) for episode in with_it],
            [episode.metrics[name] for episode in with_it],
        )


def _thinned(stage: str, name: str, axis: str, xs: list[float], ys: list[float]) -> Curve:
    """Evenly, with both ends."""
    last, points = len(xs) - 1, min(len(xs), _POINTS)
    kept = [round(i * last / max(1, points - 1)) for i in range(points)]
    return Curve(
        stage=stage, name=name, axis=axis, x=[xs[i] for i in kept], y=[ys[i] for i in kept]
    )
