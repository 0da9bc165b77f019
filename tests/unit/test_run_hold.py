"""A run that is held between two steps, and a training that waits meanwhile."""

import asyncio
from pathlib import Path
from typing import cast

import pytest

from orchestrator.control.hold import RunHold
from pairloop.admin.v1 import admin_pb2 as messages
from services.errors import StateError
from services.learner.train.distributed import Worker
from services.learner.train.hold import Hold, held_at
from services.telemetry.record.events import StageHeld, TrainProgress
from services.telemetry.record.state import RunState


def change(request_id: str) -> messages.Change:
    return messages.Change(actor="ada", reason="a look", request_id=request_id)


def hold_of(folder: Path) -> tuple[RunHold, messages.Run, list[str]]:
    own, said = messages.Run(state=messages.RUN_STATE_RUNNING), list[str]()
    return RunHold(folder, own, said.append), own, said


def progress(hold: RunHold) -> None:
    event = TrainProgress(stage="sft", step=1, steps=9, tokens=1, seconds=1.0, metrics={})
    hold.handle(event, RunState())


async def test_a_stage_does_not_begin_while_the_run_is_held(tmp_path: Path) -> None:
    hold, own, said = hold_of(tmp_path)
    await asyncio.wait_for(hold.passed(), 5)
    await hold.pause(change("1"))
    assert own.state == messages.RUN_STATE_PAUSING
    waiting = asyncio.create_task(hold.passed())
    await asyncio.sleep(0.3)
    assert not waiting.done()
    assert own.state == messages.RUN_STATE_PAUSED
    await hold.resume(change("2"))
    await asyncio.wait_for(waiting, 5)
    assert own.state == messages.RUN_STATE_RUNNING
    assert said == [
        "the run pauses after this step, by ada: a look",
        "the run is paused, by ada: a look",
        "the run goes on, by ada: a look",
    ]
    with pytest.raises(StateError, match="the run is not paused"):
        await hold.resume(change("3"))


async def test_a_pause_outlives_the_process_and_a_stop_does_not(tmp_path: Path) -> None:
    hold, _, _ = hold_of(tmp_path)
    await hold.pause(change("1"))
    again, own, _ = hold_of(tmp_path)
    assert again.wanted
    assert (own.state, own.last_change.reason) == (messages.RUN_STATE_PAUSING, "a look")
    again.file.write_text("{}")  # what a stop leaves that was cut off
    later, own, _ = hold_of(tmp_path)
    assert not later.wanted
    assert own.state == messages.RUN_STATE_RUNNING


async def test_a_run_is_paused_once_its_training_waits(tmp_path: Path) -> None:
    hold, own, _ = hold_of(tmp_path)
    hold.handle(StageHeld(stage="sft", held=True), RunState())
    assert own.state == messages.RUN_STATE_RUNNING
    await hold.pause(change("1"))
    hold.handle(StageHeld(stage="sft", held=True), RunState())
    assert own.state == messages.RUN_STATE_PAUSED


async def test_a_stop_waits_for_the_checkpoint_of_a_training_that_took_steps(
    tmp_path: Path,
) -> None:
    hold, _, said = hold_of(tmp_path)
    await hold.checkpointed("sft", 60.0)  # it took none
    progress(hold)
    await hold.checkpointed("sft", 0.0)
    waiting = asyncio.create_task(hold.checkpointed("sft", 60.0))
    while not hold.wanted:
        await asyncio.sleep(0.01)
    held_at(hold.file).write_text("7")
    await asyncio.wait_for(waiting, 5)
    assert not hold.wanted
    held_at(hold.file).unlink()
    await hold.checkpointed("sft", 0.3)
    assert said == ["sft: no checkpoint within 0.3 s; it goes on from the last one"]


class Training:
    """Steps of a learner that may be held; the time is made up."""

    def __init__(self, file: Path) -> None:
        self.file, self.now, self.did = file, 0.0, list[object]()
        self.hold = Hold(file, Worker(), self.did.append, lambda: self.now, self.sleep)
        self.freed_at = 10.0

    def sleep(self, seconds: float) -> None:
        assert held_at(self.file).read_text() == "3"
        self.now += seconds
        if self.now >= self.freed_at:
            self.file.unlink()

    def step(self, number: int) -> None:
        self.now += 1.0
        self.hold.after_step(number, lambda: self.did.append(f"saved {number}"))


def test_a_training_that_is_held_saves_says_so_and_waits(tmp_path: Path) -> None:
    training = Training(tmp_path / ".hold")
    training.step(1)
    training.step(2)
    assert training.did == []
    training.file.touch()
    training.step(3)
    assert training.did == ["saved 3", True, False]
    assert not held_at(training.file).exists()
    assert training.hold.seconds == pytest.approx(7.0)
    assert training.hold.worked() == pytest.approx(3.0)
    training.step(4)
    assert training.did == ["saved 3", True, False]


def test_no_file_no_hold() -> None:
    never = Hold(None, cast(Worker, None))
    never.after_step(1, lambda: pytest.fail("it saved"))
