"""Payloads as files of a folder that every node of the run sees.

    <folder>/00003/p00017-<sha256>    of episode 3

A folder an episode goes as a whole, a while after Redis has let go of the episode: a Redis that
falls back (loss of power, failover) may for a moment name again what was over.
"""

import os
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path, PurePosixPath

PAYLOADS = "payloads"
"""The folder, in the scratch folder of a stage."""
_SETTLED_S = 60.0
"""No Redis falls back so far: with appendfsync everysec it loses 1 or 2 s."""


class PayloadFolder:
    """A PayloadStore. Goes from process to process; `forget` is the orchestrator's alone."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._clock = folder.resolve(), clock
        self._over: dict[int, float] = {}
        """Episodes that Redis let go of, and when; of an earlier process's, when they were seen."""

    def keep(self, path: str, payload: bytes) -> None:
        """Whole, or not there."""
        target = self._at(path)
        if target.is_file() and target.stat().st_size == len(payload):
            return  # its name is its content
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{uuid.uuid4().hex}.tmp")
        try:
            with partial.open("wb") as file:
                file.write(payload)
                file.flush()
                os.fsync(file.fileno())
            partial.rename(target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        for folder in (target.parent, self._folder):
            _flush(folder)

    def read(self, path: str) -> bytes:
        """As PayloadStore."""
        return self._at(path).read_bytes()

    def forget(self, episode: int) -> None:
        """Remove what episodes up to this one left, once that was a while ago."""
        now = self._clock()
        self._over[episode] = now  # it may have come back since it was over the first time
        for folder in self._folder.glob("[0-9]*"):
            number = int(folder.name)
            if number <= episode and now - self._over.setdefault(number, now) >= _SETTLED_S:
                shutil.rmtree(folder, ignore_errors=True)
                del self._over[number]

    def place(self, path: str) -> str:
        """The file."""
        return str(self._folder / path)

    def _at(self, path: str) -> Path:
        if ".." in PurePosixPath(path).parts:  # Redis is not asked what to read on this machine
            raise FileNotFoundError(2, "it is no path in this folder")
        return self._folder / PurePosixPath(path).as_posix().lstrip("/")


def _flush(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
