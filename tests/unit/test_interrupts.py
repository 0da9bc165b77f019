"""What the first and the second Ctrl-C do, and SIGTERM."""

import asyncio
import contextlib
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from orchestrator.interrupts import INTERRUPTED, STOPPING, Interrupts

BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


@BOTH
def test_the_first_ends_the_loop_in_order_after_it_has_said_so(number: signal.Signals) -> None:
    history: list[str] = []

    async def main() -> None:
        try:
            signal.raise_signal(number)
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)  # cleaning up may wait
            history.append("cleaned up")

    interrupts = Interrupts()
    with (
        interrupts.listening(),
        pytest.raises(KeyboardInterrupt),
        interrupts.run_begun(history.append, 2),
    ):
        interrupts.complete(main())
    assert history == [STOPPING, "cleaned up"]


def test_an_error_while_it_stops_is_a_consequence() -> None:
    async def main() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
            await asyncio.sleep(60)
        finally:
            raise ValueError("a part could not be told")

    interrupts = Interrupts()
    with (
        interrupts.listening(),
        pytest.raises(KeyboardInterrupt) as caught,
        interrupts.run_begun(lambda text: None, 2),
    ):
        interrupts.complete(main())
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_signal_that_came_too_late_changes_nothing() -> None:
    done: list[str] = []

    async def main() -> None:
        signal.raise_signal(signal.SIGINT)
        done.append("done")

    interrupts = Interrupts()
    with interrupts.listening(), interrupts.run_begun(lambda text: None, 2):
        interrupts.complete(main())
    assert done == ["done"]


def test_an_error_of_its_own_comes_out_of_the_loop() -> None:
    async def main() -> None:
        raise ValueError("of its own")

    with pytest.raises(ValueError, match="of its own"):
        Interrupts().complete(main())


def test_what_must_not_be_left_half_done_is_finished_first() -> None:
    history: list[str] = []
    interrupts = Interrupts()

    def work() -> None:
        with interrupts.held():
            signal.raise_signal(signal.SIGINT)
            history.append("whole")
        history.append("not reached")

    with (
        interrupts.listening(),
        interrupts.run_begun(history.append, 2),
        pytest.raises(KeyboardInterrupt),
    ):
        work()
    assert history == [STOPPING, "whole"]


def test_the_handlers_are_given_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with Interrupts().listening():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


BEFORE = """
import signal, subprocess
from orchestrator.interrupts import interrupts
quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
child = subprocess.Popen(["sleep", "600"], start_new_session=True, **quiet)
print(child.pid, flush=True)
with interrupts.listening():
    try:
        signal.raise_signal(signal.SIGINT)
    except BaseException:
        print("caught")  # as an import may
"""
TWICE = """
import os, signal, subprocess, time
from orchestrator.interrupts import interrupts
child = subprocess.Popen(["sleep", "600"])
quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
guarded = subprocess.Popen(["sleep", "600"], start_new_session=True, **quiet)
print(child.pid, guarded.pid, flush=True)
with interrupts.listening(), interrupts.run_begun(lambda text: print(text, flush=True), 2):
    try:
        signal.raise_signal(signal.SIGTERM)
    except KeyboardInterrupt:
        signal.raise_signal(signal.SIGINT)
    print("not reached", flush=True)
"""


def run(script: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", script]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, start_new_session=True
    )


def gone(pid: int) -> None:
    """Wait until it is."""
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(pid).wait(30)


def test_before_a_run_the_process_ends_with_one_line() -> None:
    done = run(BEFORE)
    assert (done.returncode, done.stderr) == (130, INTERRUPTED + "\n")
    (pid,) = done.stdout.splitlines()
    gone(int(pid))


def test_the_second_ends_the_process_and_what_it_started() -> None:
    done = run(TWICE)
    pids, *lines = done.stdout.splitlines()
    assert (done.returncode, lines, done.stderr) == (130, [STOPPING], INTERRUPTED + "\n")
    child, guarded = map(int, pids.split())
    gone(child)
    command = Path(f"/proc/{guarded}/cmdline").read_text()
    subprocess.run(["kill", str(guarded)], check=True)
    assert command.split("\0")[:2] == ["sleep", "600"], "a session of its own ends by itself"


NATIVE = """
import os, subprocess, sys
from pathlib import Path
from orchestrator.stages.native_log import stderr_to
log = Path(sys.argv[1])
with stderr_to(log) as terminal:
    os.write(2, b"I0000 fork_posix.cc] from C++\\n")
    print("a warning", file=sys.stderr)
    subprocess.run(["sh", "-c", "echo from a child >&2"])
    os.write(terminal, b"to the terminal\\n")
print("after", file=sys.stderr)
with stderr_to(log.with_name("empty.log")):
    pass
"""


def test_what_libraries_print_is_in_a_file_and_an_empty_one_is_none(tmp_path: Path) -> None:
    command = [sys.executable, "-c", NATIVE, str(tmp_path / "stderr.log")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("", "to the terminal\nafter\n")
    assert (tmp_path / "stderr.log").read_text() == (
        "I0000 fork_posix.cc] from C++\na warning\nfrom a child\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["stderr.log"]
