"""The command of a run, and the processes that it has started."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import psutil

ROOT = Path(__file__).resolve().parents[2]
PROCESSES = {
    "engine": "ray::RolloutActor",
    "pairing worker": "ray::PairActor",
    "learner": "RayTrainWorker",
    "redis": "redis-server",
    "reward gateway": "ray::Gateway",
    "reward replica": "ray::ServeReplica",
    "version store": "ray::VersionStore",
    "event sink": "ray::EventSink",
}
"""By what a process calls itself."""


class Command:
    """In a session of its own; its lines go to a file."""

    def __init__(
        self, words: Sequence[str], log: Path, environment: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """`words`: for Python; `environment`: beside this process's own."""
        with log.open("a") as file:
            self._log, self._begins = log, log.stat().st_size
            self.process = subprocess.Popen(
                [sys.executable, *words],
                cwd=ROOT,
                env={**os.environ, **environment},
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def processes(self, part: str) -> list[psutil.Process]:
        """Those of a part that live."""
        found = []
        for each in self.everything()[1:]:
            try:
                if PROCESSES[part] in " ".join(each.cmdline()) and each.status() != "zombie":
                    found.append(each)
            except psutil.NoSuchProcess:
                continue
        return found

    def everything(self) -> list[psutil.Process]:
        """The orchestrator, then all that it has started."""
        try:
            whole = psutil.Process(self.process.pid)
            return [whole, *whole.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def up(self) -> bool:
        """Whether the loop has begun: who dies while it starts, ends the start."""
        return "services up after" in self._log.read_text()[self._begins :]

    def kill(self) -> None:
        """As the loss of the machine."""
        everything = self.everything()
        for each in everything:
            send(each, signal.SIGKILL)
        psutil.wait_procs(everything, timeout=30)
        self.process.wait(30)


def send(process: psutil.Process, number: int) -> None:
    """A signal, to a process that may be gone."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)
