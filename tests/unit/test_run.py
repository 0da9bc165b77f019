"""The command's last line, and which error it is of."""

import subprocess
import sys

import pytest
from ray.exceptions import ActorDiedError

from orchestrator import run as command
from orchestrator.checks.memory import MemoryWatch, memory_limit
from orchestrator.stages.run import known_error
from services.errors import (
    DataError,
    OutOfMemoryError,
    WorkerDiedError,
    WorkerError,
)
from services.out_of_memory import Usage


def test_the_last_line_has_at_most_300_characters(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["k" * 1000 + "=1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("pairloop: ")
    assert 200 < len(line) <= 300


def test_one_of_ours_is_what_it_was() -> None:
    ours = DataError("rows.jsonl:3: no prompt; add one")
    assert known_error(ours, MemoryWatch(), "error.log") is ours


def test_a_foreign_error_says_where_its_traceback_is() -> None:
    found = known_error(ZeroDivisionError("by zero"), MemoryWatch(), "runs/x/error.log")
    assert type(found) is WorkerError
    assert str(found) == (
        "the run failed: ZeroDivisionError: by zero; the traceback is in runs/x/error.log"
    )
    lost = known_error(ZeroDivisionError("by zero"), MemoryWatch(), "")
    assert str(lost) == "the run failed: ZeroDivisionError: by zero"


def test_a_death_is_one_for_lack_of_memory_when_the_machine_was_full() -> None:
    died = WorkerDiedError("rollout-0 died: its process was killed or crashed; go on")
    watch = MemoryWatch()
    watch.see([Usage("ray::RolloutActor.run", memory_limit() // 2)])
    assert known_error(died, watch, "error.log") is died
    watch.see([Usage("ray::RolloutActor.run", memory_limit())])
    found = known_error(died, watch, "error.log")
    assert type(found) is OutOfMemoryError
    assert str(found).endswith("; lower engine.kv_cache_gib or engine.max_num_seqs")


def test_rays_own_error_that_nobody_unwrapped_is_a_death_too() -> None:
    found = known_error(ActorDiedError(), MemoryWatch(), "error.log")
    assert type(found) is WorkerDiedError


@pytest.mark.parametrize(("connected", "status"), [(True, 3), (False, 139)])
def test_a_process_that_is_still_connected_ends_without_rays_handlers(
    connected: bool, status: int
) -> None:
    program = f"""
import atexit, os, sys, types
from orchestrator.run import _end
sys.modules["ray"] = ray = types.ModuleType("ray")
ray.is_initialized = lambda: {connected}
atexit.register(os._exit, 139)  # as a crash in one of them would
print("all is said", end="")
_end(3)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (status, "all is said")
