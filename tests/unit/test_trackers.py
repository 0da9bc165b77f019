"""What trackers are told, what of it is found again, and that none of them holds a run."""

import importlib.util
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from tensorboardX.crc32c import crc32c
from tensorboardX.proto.event_pb2 import Event as TensorBoardEvent
from tensorboardX.proto.event_pb2 import SessionLog

from orchestrator.checks.preflight import check
from orchestrator.jobs.online_dpo import OnlineDPO
from services.errors import ConfigError, Waiting
from services.telemetry.flat import flattened
from services.telemetry.record.begin import begin_record
from services.telemetry.record.events import (
    EpisodeFinished,
    Event,
    RunStarted,
    StageStarted,
    TrainProgress,
)
from services.telemetry.record.recorder import Recorder, read_line
from services.telemetry.trackers.behind import Behind
from services.telemetry.trackers.settings import MlflowSettings, TrackerSettings, WandbSettings
from services.telemetry.trackers.tensorboard import TensorBoard
from services.telemetry.trackers.tracker import Outcome, Told, TrackedRun, Tracker
from services.telemetry.trackers.tracking import Tracking

RECORDED = Path("tests/recorded/online_run.jsonl")


class Remembered:
    """A tracker that keeps what it is told."""

    name = "remembered"

    def __init__(self) -> None:
        self.begun: list[TrackedRun] = []
        self.told: list[Told] = []
        self.ended: list[Outcome] = []

    def begin(self, run: TrackedRun) -> None:
        self.begun.append(run)

    def scalars(self, told: Told) -> None:
        self.told.append(told)

    def flush(self) -> None: ...

    def end(self, outcome: Outcome) -> None:
        self.ended.append(outcome)


class Raising(Remembered):
    name = "raising"

    def scalars(self, told: Told) -> None:
        raise OSError(f"no route to redis://me:secret@host at step {told.step}")


class Unreachable(Remembered):
    name = "unreachable"

    def begin(self, run: TrackedRun) -> None:
        raise ConnectionError("nobody there")


class Hanging(Remembered):
    name = "hanging"

    def __init__(self) -> None:
        super().__init__()
        self.let_go = threading.Event()

    def scalars(self, told: Told) -> None:
        self.let_go.wait(30)


def attempt(
    folder: Path, events: Iterable[Event], *trackers: Tracker, end_s: float = 20.0
) -> list[str]:
    """One attempt at a run; the warnings of its record."""
    tracking = Tracking(trackers, TrackedRun("demo", "recipe", folder), end_s)
    recorder = Recorder(folder, [tracking])
    with recorder, tracking.telling(recorder):
        recorder(RunStarted())
        for event in events:
            recorder(event)
    return [note.text for note in recorder.state.notes if note.level == "warning"]


def started(stage: str = "sft") -> StageStarted:
    return StageStarted(stage=stage, job=stage, index=1, total=1)


def step(number: int, loss: float = 1.0, stage: str = "sft") -> TrainProgress:
    return TrainProgress(
        stage=stage, step=number, steps=9, tokens=number, seconds=1.0, metrics={"loss": loss}
    )


def episode(number: int, reward: float) -> EpisodeFinished:
    return EpisodeFinished(
        stage="online", number=number, total=3, version=number, pairs=4,
        dropped={"TIE": 2}, metrics={"reward_mean": reward},
    )  # fmt: skip


def read_events(folder: Path) -> list[TensorBoardEvent]:
    """Every event of a folder's files, oldest file first, by another's checksum and messages."""
    found = []
    for path in sorted(folder.glob("*.tfevents.*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            event = data[at + 12 : at + 12 + length]
            checks = (
                struct.unpack_from("<I", data, at + 8),
                struct.unpack_from("<I", data, at + 12 + length),
            )
            assert checks == ((masked(data[at : at + 8]),), (masked(event),))
            found.append(TensorBoardEvent.FromString(event))
            at += 16 + length
    return found


def masked(data: bytes) -> int:
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def shown(folder: Path, tag: str) -> list[tuple[int, float]]:
    """Steps and values of a tag as TensorBoard shows them: a session's start drops what follows."""
    points: list[tuple[int, float]] = []
    for event in read_events(folder):
        if event.session_log.status == SessionLog.START:
            points = [point for point in points if point[0] < event.step]
        points += [(event.step, v.simple_value) for v in event.summary.value if v.tag == tag]
    return points


def test_a_recorded_run_is_read_back_from_tensorboard_files(tmp_path: Path) -> None:
    events = [read_line(line)[1] for line in RECORDED.read_text().splitlines()]
    kept = Remembered()
    assert not [said for said in attempt(tmp_path, events, TensorBoard(), kept) if "board" in said]
    place = tmp_path / "tensorboard" / "online_dpo"
    steps = [e for e in events if isinstance(e, TrainProgress)]
    assert [n for n, _ in shown(place, "train/loss")] == [e.step for e in steps]
    assert [x for _, x in shown(place, "train/loss")] == pytest.approx(
        [e.metrics["loss"] for e in steps]
    )
    done = [e for e in events if isinstance(e, EpisodeFinished)]
    assert [x for _, x in shown(place, "episode/reward_mean")] == pytest.approx(
        [e.metrics["reward_mean"] for e in done]
    )
    assert [n for n, _ in shown(place, "episode/reward_mean")] == [1, 2, 3, 4, 5, 6]
    assert kept.ended == ["finished"]
    assert {t.axis for t in kept.told} == {"train", "episode", "finished"}


def test_what_is_done_again_is_told_once(tmp_path: Path) -> None:
    first, second = Remembered(), Remembered()
    attempt(tmp_path, [started(), *map(step, (1, 2, 3)), episode(1, 0.5)], first, TensorBoard())
    again = [started(), step(2), step(3), step(4), episode(1, 0.5), episode(2, 0.6)]
    attempt(tmp_path, again, second, TensorBoard())
    assert [(t.axis, t.step) for t in first.told] == [
        ("train", 1), ("train", 2), ("train", 3), ("episode", 1),
    ]  # fmt: skip
    assert [(t.axis, t.step) for t in second.told] == [("train", 4), ("episode", 2)]
    assert [n for n, _ in shown(tmp_path / "tensorboard" / "sft", "train/loss")] == [1, 2, 3, 4]


def test_a_stage_that_begins_anew_takes_back_what_was_told_of_it(tmp_path: Path) -> None:
    attempt(tmp_path, [started(), step(1, 1.0), step(2, 2.0)], TensorBoard())
    begin_record(tmp_path, {"sft"})
    kept = Remembered()
    attempt(tmp_path, [started(), step(1, 3.0)], TensorBoard(), kept)
    assert shown(tmp_path / "tensorboard" / "sft", "train/loss") == [(1, 3.0)]
    assert kept.begun[0].anew == {"sft"}


def test_what_fails_is_said_once_and_holds_nobody(tmp_path: Path) -> None:
    kept, raising = Remembered(), Raising()
    said = attempt(tmp_path, [started(), *map(step, range(1, 9))], raising, Unreachable(), kept)
    assert sorted(said) == [
        "raising failed (OSError: no route to redis://me:***@host at step 1); what it missed is"
        " left out",
        "unreachable cannot be used (ConnectionError: nobody there); this run goes on without it",
    ]
    assert len(kept.told) == 8
    assert raising.ended == ["finished"]


def test_one_that_hangs_is_left_behind(tmp_path: Path) -> None:
    hanging, kept = Hanging(), Remembered()
    said = attempt(tmp_path, [started(), step(1)], hanging, kept, end_s=0.2)
    assert said == ["hanging did not take in all before the run ended; its last points may lack"]
    assert [t.step for t in kept.told] == [1]
    hanging.let_go.set()


def test_what_finds_no_room_is_dropped(tmp_path: Path) -> None:
    hanging = Hanging()
    behind = Behind(hanging, TrackedRun("demo", "sft", tmp_path), room=3)
    behind.start()
    for number in range(9):
        behind.put(Told("sft", "train", number, 0.0, {"loss": 1.0}))
    assert behind.trouble() == ["hanging does not keep up; points are left out"]
    hanging.let_go.set()
    behind.ask_end("finished")
    behind.wait(time.monotonic() + 20)
    assert hanging.ended == ["finished"]
    assert behind.trouble() == []


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Waiting("for raters"), "waiting"),
        (KeyboardInterrupt(), "interrupted"),
        (OSError(), "failed"),
    ],
)
def test_how_an_attempt_ended_is_told(tmp_path: Path, error: BaseException, outcome: str) -> None:
    def events() -> Iterator[Event]:
        yield started()
        raise error

    kept = Remembered()
    with pytest.raises(type(error)):
        attempt(tmp_path, events(), kept)
    assert kept.ended == [outcome]


def test_a_config_is_told_flat_and_without_passwords() -> None:
    config = {"queues": {"url": "redis://me:secret@host/0", "n": None}, "parts": [{"kind": "x"}]}
    assert flattened(config) == {"queues.url": "redis://me:***@host/0", "parts.0.kind": "x"}


@pytest.mark.parametrize("package", ["wandb", "mlflow"])
def test_a_tracker_without_its_package_is_refused_before_the_run(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = importlib.util.find_spec
    without = lambda name: None if name == package else there(name)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", without)
    settings = TrackerSettings(
        wandb=WandbSettings() if package == "wandb" else None,
        mlflow=MlflowSettings() if package == "mlflow" else None,
    )
    job = OnlineDPO.model_validate(
        {"policy": "p", "prompts": {"path": "x"}, "reward": {"parts": [{"kind": "checker"}]},
         "trackers": settings}
    )  # fmt: skip
    with pytest.raises(ConfigError, match=rf"'trackers.{package}': .*`pip install {package}"):
        check(job)
