"""Ctrl-C by the command, on real parts: what it says, what it leaves, and how the run goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from orchestrator.interrupts import INTERRUPTED, STOPPING

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


class Command:
    """One run in a session of its own, as in a terminal; its output is read as it comes."""

    def __init__(self, output: Path) -> None:
        command = [sys.executable, "orchestrator/run.py", "tests/e2e/tiny.yaml", "name=stopped"]
        command += [f"output={output}", "stages.online_dpo.dpo.beta=0.3"]
        self.run = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []

    def until(self, text: str) -> None:
        assert self.run.stdout is not None
        for line in self.run.stdout:
            self.lines.append(line.rstrip("\n"))
            if text in line:
                return
        pytest.fail(f"it ended before {text!r}: {self.lines}")

    def interrupt(self) -> None:
        """As a terminal does: every process in the foreground gets it."""
        os.killpg(self.run.pid, signal.SIGINT)

    def rest(self) -> list[str]:
        """The lines from here to its end."""
        printed, _ = self.run.communicate(timeout=300)
        return printed.splitlines()

    def processes(self) -> list[psutil.Process]:
        return psutil.Process(self.run.pid).children(recursive=True)


def left(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that do not end: Redis writes what it holds first."""
    return psutil.wait_procs(processes, timeout=30)[1]


def listens(pid: int) -> bool:
    """Whether it has a handler of SIGTERM, as Python by itself has not."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught, 16) & 1 << (signal.SIGTERM - 1))


@pytest.mark.parametrize("after_s", [0.0, 0.2, 0.5])
def test_among_imports_and_checks_it_ends_without_a_traceback(recipe: Path, after_s: float) -> None:
    command = Command(recipe.parent)
    while not listens(command.run.pid):
        time.sleep(0.01)
    time.sleep(after_s)
    command.interrupt()
    lines = command.rest()
    assert command.run.returncode == 130
    assert lines[-1] == INTERRUPTED
    assert "Traceback" not in "".join(lines)


def test_once_it_stops_in_order_twice_at_once_and_then_the_run_goes_on(recipe: Path) -> None:
    first = Command(recipe.parent)
    first.until("to pause: ")
    started = first.processes()
    first.interrupt()
    lines = first.rest()
    assert (first.run.returncode, lines[-2:]) == (130, [STOPPING, INTERRUPTED])
    assert left(started) == []

    second = Command(recipe.parent)
    second.until("to pause: ")
    second.interrupt()
    second.until(STOPPING)
    started = second.processes()
    second.interrupt()
    assert (second.rest(), second.run.returncode) == ([INTERRUPTED], 130)
    assert left(started) == []

    third = Command(recipe.parent)
    lines = third.rest()
    assert third.run.returncode == 0, lines
    assert any("online_dpo goes on where it stood" in line for line in lines)
    assert not list((recipe.parent / "stopped").glob("*.log"))
