"""What a run's times count: work of every attempt, and neither pauses nor the time in between."""

import asyncio
import json
from pathlib import Path

import pytest

from orchestrator.loop import sample_episode
from services.queues.settings import EpisodeSettings
from services.states import State, message_state
from services.telemetry.record.begin import begin_record
from services.telemetry.record.events import (
    EpisodeChanged,
    EpisodeFinished,
    Evaluated,
    Event,
    Note,
    PairExample,
    RunStarted,
    StageFinished,
    StageStarted,
    TrainProgress,
)
from services.telemetry.record.recorder import Recorder
from services.telemetry.record.reduce import apply
from services.telemetry.record.state import RunState
from services.telemetry.report.results import LiveResults
from services.telemetry.views.estimate import stage_left
from tests.unit.test_loop import World


def started(stage: str, index: int = 1) -> StageStarted:
    return StageStarted(stage=stage, job=stage, index=index, total=2)


def finished(stage: str, seconds: float = 1.0) -> StageFinished:
    return StageFinished(stage=stage, job=stage, seconds=seconds, reused=False, folder=stage)


def changed(state: State, number: int = 1, total: int = 3) -> EpisodeChanged:
    return EpisodeChanged(
        stage="online_dpo",
        number=number,
        total=total,
        state=state,
        prompts=4,
        dispatched=2,
        in_flight=0,
        paired=2,
        dropped={},
    )


def done(number: int, seconds: float, total: int = 3) -> EpisodeFinished:
    metrics = {"sample_seconds": seconds, "train_seconds": 1.0, "sync_seconds": 0.0}
    return EpisodeFinished(
        stage="online_dpo",
        number=number,
        total=total,
        version=number,
        pairs=2,
        dropped={},
        metrics=metrics,
    )


def after(*timed: tuple[float, Event]) -> RunState:
    state = RunState()
    for at, event in timed:
        apply(state, event, at)
    return state


def test_time_between_attempts_is_no_work() -> None:
    progress = TrainProgress(stage="sft", step=1, steps=2, tokens=1, seconds=1.0, metrics={})
    state = after(
        (100.0, RunStarted()),
        (105.0, started("sft")),
        (115.0, progress),  # killed here
        (900.0, RunStarted()),
        (903.0, started("sft")),
        (910.0, finished("sft")),
    )
    assert (state.worked, state.paused, state.attempts) == (25.0, 0.0, 2)
    assert state.stages["sft"].worked == 17.0


def test_a_pause_is_no_work_and_no_sampling() -> None:
    state = after(
        (0.5, RunStarted()),
        (1.0, started("online_dpo")),
        (2.0, changed(State.SAMPLING)),
        (12.0, changed(State.PAUSING)),
        (14.0, changed(State.PAUSED)),
        (500.0, Note(text="a look")),
        (1014.0, changed(State.SAMPLING)),
        (1020.0, changed(State.TRAINING)),
    )
    stage = state.stages["online_dpo"]
    assert (state.worked, state.paused) == (19.5, 1000.0)
    assert (stage.worked, stage.paused) == (19.0, 1000.0)
    assert stage.episodes[1].sampling_seconds == 18.0


def test_an_episode_that_was_cut_off_sampled_in_both_attempts() -> None:
    state = after(
        (0.5, started("online_dpo")),
        (1.0, changed(State.SAMPLING)),
        (31.0, changed(State.SAMPLING)),
        (90.0, RunStarted()),
        (91.0, started("online_dpo")),
        (95.0, changed(State.SAMPLING)),
        (100.0, changed(State.TRAINING)),
        (101.0, done(1, seconds=5.0)),
    )
    assert state.stages["online_dpo"].episodes[1].metrics["sample_seconds"] == 30.0 + 5.0


def test_what_is_left_goes_by_what_most_episodes_took() -> None:
    state = after(*((float(n), done(n, 60.0 if n == 1 else 4.0, total=7)) for n in range(1, 6)))
    assert stage_left(state.stages["online_dpo"]) == 2 * 5.0  # the first one held the start-up


async def test_the_loop_counts_no_paused_time_as_sampling() -> None:
    world = World(count=1, prompts=2)
    shown = []

    async def statistics(number: int) -> dict[str, float]:
        shown.append(number)
        return {}

    async def sleep(seconds: float) -> None:
        await world.sleep(seconds)
        if world._looks == 2:
            world.episodes[1].state = message_state(State.PAUSED)
        if world._looks == 1000:
            world.episodes[1].state = message_state(State.SAMPLING)

    world.pairing = False
    ports = world.ports()
    ports.changed, ports.statistics = sleep, statistics

    async def last_pairs() -> None:
        await world.looked(1001)
        world.pairing = True

    waiting = asyncio.create_task(last_pairs())
    seconds = await sample_episode(ports, EpisodeSettings(count=1, prompts=2), 1)
    await waiting
    assert seconds < 10.0 < 900.0 < world.now  # 1,000 looks, a second each
    assert shown == [1]  # the workers showed their pairs, once


def test_a_record_keeps_nothing_of_what_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    events: list[tuple[float, Event]] = [
        (1.0, RunStarted()),
        (2.0, Note(text="of the whole run")),
        (3.0, started("sft")),
        (4.0, finished("sft")),
        (5.0, started("online_dpo", 2)),
        (6.0, Evaluated(stage="e", policy="online_dpo", sampled=0.5)),
        (60.0, started("e", 3)),
        (61.0, finished("e")),
    ]
    with path.open("w", encoding="utf-8") as file:
        for at, event in events:
            file.write(json.dumps({"time": at, **event.model_dump(mode="json")}) + "\n")
    whole = path.read_text(encoding="utf-8")
    begin_record(tmp_path, set())
    assert path.read_text(encoding="utf-8") == whole
    begin_record(tmp_path, {"online_dpo"})
    assert (tmp_path / ".replaced" / "metrics-1.jsonl").read_text(encoding="utf-8") == whole
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [(row["kind"], row["stage"]) for row in rows] == [
        ("run_started", ""),
        ("run_started", ""),
        ("stage_started", "sft"),
        ("stage_finished", "sft"),
        ("run_started", ""),
        ("stage_started", "e"),
        ("stage_finished", "e"),
    ]
    with Recorder(tmp_path) as record:
        assert record.state.worked < 10.0  # nothing of the stage that took 55 s
    begin_record(tmp_path, {"sft"})
    assert (tmp_path / ".replaced" / "metrics-2.jsonl").is_file()


def test_the_report_is_written_while_the_run_goes_on(tmp_path: Path) -> None:
    now = [0.0]
    example = PairExample(
        stage="online_dpo",
        episode=1,
        prompt="What is 3 + 4?",
        chosen="seven it is",
        rejected="8",
        chosen_score=1.0,
        rejected_score=0.0,
    )
    page, numbers = tmp_path / "report.html", tmp_path / "summary.json"

    def read() -> str:
        text = page.read_text(encoding="utf-8") if page.is_file() else ""
        page.unlink(missing_ok=True)
        return text

    with Recorder(tmp_path, [LiveResults(tmp_path, {"name": "x"}, lambda: now[0])]) as record:
        record(started("online_dpo"))
        record(changed(State.SAMPLING))
        assert read() == ""
        record(changed(State.PAUSED))
        assert "The run goes on; this page is as of" in read()
        record(changed(State.PAUSED))
        assert read() == ""
        record(example)
        assert "seven it is" in read()
        record(changed(State.SAMPLING))
        record(example)
        assert read() == ""
        record(done(1, 1.0))
        assert "seven it is" in read()
        assert json.loads(numbers.read_text(encoding="utf-8"))["run"]["under_way"] is True
        record(finished("online_dpo"))
        assert "The run goes on" in read()


def test_writing_takes_a_small_share_of_a_long_run(tmp_path: Path) -> None:
    ticks = iter(range(0, 1000, 10))  # every look at the clock is 10 s later

    written = []

    class Counted(LiveResults):
        def handle(self, event: Event, state: RunState) -> None:
            (tmp_path / "summary.json").unlink(missing_ok=True)
            super().handle(event, state)
            written.append((tmp_path / "summary.json").is_file())

    with Recorder(tmp_path, [Counted(tmp_path, {}, lambda: float(next(ticks)))]) as record:
        for number in range(1, 6):
            record(done(number, 1.0))
    # The first took 10 s, so the next is due 500 s later.
    assert written == [True, False, False, False, False]


def test_a_page_that_cannot_be_written_ends_no_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "results").write_text("no folder")
    with Recorder(tmp_path, [LiveResults(tmp_path / "results", {})]) as record:
        record(done(1, 1.0))
        assert 1 in record.state.stages["online_dpo"].episodes
    assert "report.html and summary.json were not written" in caplog.text
