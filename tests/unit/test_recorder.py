"""The recorder's file and the state reduced from it."""

import json
import math
from pathlib import Path

import pytest

from services.states import State
from services.telemetry.record.events import (
    EpisodeChanged,
    Event,
    Note,
    PairExample,
    TrainProgress,
)
from services.telemetry.record.recorder import Recorder, read_line
from services.telemetry.record.reduce import apply
from services.telemetry.record.state import RunState
from tests.sample_events import EPISODES, STAGES, run_events


class Heard:
    """A listener that keeps its calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def start(self) -> None:
        self.calls.append("start")

    def handle(self, event: Event, state: RunState) -> None:
        self.calls.append(event.kind)

    def stop(self) -> None:
        self.calls.append("stop")


def _step(step: int, stage: str = "sft", **metrics: float) -> TrainProgress:
    return TrainProgress(
        stage=stage, step=step, steps=9, tokens=step * 10, seconds=float(step), metrics=metrics
    )


def _episode(
    number: int, state: State, dispatched: int = 0, in_flight: int = 0, stage: str = "online"
) -> EpisodeChanged:
    return EpisodeChanged(
        stage=stage,
        number=number,
        total=10,
        state=state,
        prompts=128,
        dispatched=dispatched,
        in_flight=in_flight,
        paired=0,
        dropped={},
    )


def test_each_event_is_one_line_with_its_wall_time_at_once(tmp_path: Path) -> None:
    with Recorder(tmp_path, clock=lambda: 12.3456) as record:
        record(Note(text="one"))
        record(Note(text="two\nlines"))
        lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["one", "two\nlines"]
    assert [json.loads(line)["time"] for line in lines] == [12.346, 12.346]


def test_listeners_hear_every_event_between_start_and_stop(tmp_path: Path) -> None:
    heard = Heard()
    with Recorder(tmp_path, [heard]) as record:
        record(Note(text="one"))
    assert heard.calls == ["start", "note", "stop"]


def test_listeners_are_stopped_when_the_run_fails(tmp_path: Path) -> None:
    heard = Heard()
    with pytest.raises(RuntimeError), Recorder(tmp_path, [heard]):
        raise RuntimeError("the run")
    assert heard.calls == ["start", "stop"]


def test_recording_outside_the_with_statement_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not started"):
        Recorder(tmp_path)(Note(text="lost"))


def test_a_second_attempt_sees_the_whole_run_and_appends(tmp_path: Path) -> None:
    events = list(run_events())
    half = len(events) // 2
    with Recorder(tmp_path) as record:
        for event in events[:half]:
            record(event)
    heard = Heard()
    with Recorder(tmp_path, [heard]) as record:
        for event in events[half:]:
            record(event)
        state = record.state
    whole = RunState()
    for event in events:
        apply(whole, event)
    assert [stage.name for stage in state.ordered()] == list(STAGES)
    assert state.stages["online_dpo"].finished_episodes()[-1].number == EPISODES
    assert {n: len(s.curve) for n, s in state.stages.items()} == {
        n: len(s.curve) for n, s in whole.stages.items()
    }
    assert heard.calls.count("start") == 1
    assert len(heard.calls) == len(events) - half + 2
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == len(events)


def test_a_torn_last_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"time": 1.0, "kind": "note", "text": "whole"}\n{"time": 2.0, "kind": "no')
    with Recorder(tmp_path) as record:
        record(Note(text="next"))
        assert [note.text for note in record.state.notes] == ["whole", "next"]
    assert [read_line(line)[1] for line in path.read_text().splitlines()] == [
        Note(text="whole"),
        Note(text="next"),
    ]


def test_a_line_that_is_no_event_is_skipped_and_said_so(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"time": 1.0, "kind": "of_tomorrow"}\n[]\n')
    with Recorder(tmp_path) as record:
        notes = [note.line for note in record.state.notes]
    assert notes == [
        "metrics.jsonl: 2 lines are no events of this version (the first is line 1); skipped"
    ]


def test_events_of_a_version_that_named_no_stage_are_skipped_and_said_so(tmp_path: Path) -> None:
    old = EpisodeChanged.model_dump(_episode(1, State.SAMPLING), mode="json", exclude={"stage"})
    lines = [json.dumps(old), '{"kind": "note", "text": "kept"}']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    with Recorder(tmp_path) as record:
        assert record.state.stages == {}
        assert [note.line for note in record.state.notes] == [
            "kept",
            "metrics.jsonl: line 1 is no event of this version; skipped",
        ]


def test_numbers_that_are_not_finite_are_left_out_and_told_once(tmp_path: Path) -> None:
    with Recorder(tmp_path) as record:
        record(_step(1, loss=math.nan, lr=0.1))
        record(_step(2, loss=math.inf, lr=0.1))
        curve = record.state.stages["sft"].curve
        notes = record.state.notes
    assert [point.metrics for point in curve] == [{"lr": 0.1}, {"lr": 0.1}]
    assert [(n.level, n.line) for n in notes] == [("warning", "sft: loss is not finite")]
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()


def test_an_event_that_needs_the_number_becomes_a_warning(tmp_path: Path) -> None:
    pair = PairExample(
        stage="s",
        episode=1,
        prompt="p",
        chosen="a",
        rejected="b",
        chosen_score=math.nan,
        rejected_score=0.0,
    )
    with Recorder(tmp_path) as record:
        record(pair)
        assert record.state.stages == {}
        assert [n.text for n in record.state.notes] == [
            "pair_example left out: chosen_score is not finite"
        ]


def test_passwords_never_reach_the_file(tmp_path: Path) -> None:
    with Recorder(tmp_path) as record:
        record(Note(text="connected to rediss://me:hunter2@host:6379/0"))
        record(_episode(1, State.PAUSED).model_copy(update={"reason": "see redis://:hunter2@h/0"}))
    text = (tmp_path / "metrics.jsonl").read_text()
    assert "hunter2" not in text
    assert "rediss://me:***@host:6379/0" in text
