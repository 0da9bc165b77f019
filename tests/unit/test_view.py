"""The live view at several sizes, and the plain one."""

import io
import random
from pathlib import Path

import pytest
from rich.console import Console

from services.states import State
from services.telemetry.record.events import (
    EpisodeChanged,
    Evaluated,
    Event,
    Note,
    StageFinished,
    StageStarted,
    StageWaiting,
    WeightsPublished,
)
from services.telemetry.record.recorder import Recorder
from services.telemetry.record.reduce import apply
from services.telemetry.record.state import RunState
from services.telemetry.views.live import Drawing, LiveView, view_for
from services.telemetry.views.plain import PlainView
from services.telemetry.views.screen import screen
from tests.sample_events import ADMIN, evaluation, reused_events, run_events


def _drawn(state: RunState, width: int, height: int = 24, now: float = 0.0) -> list[str]:
    drawing = Drawing("demo", lambda: now or state.last_at)
    drawing.show(screen(state))
    stream = io.StringIO()
    console = Console(file=stream, width=width, height=height, force_terminal=False)
    console.print(drawing)
    return stream.getvalue().rstrip("\n").split("\n")


def _until(last: str) -> RunState:
    """The state just after the first episode event of that state with pairs before it."""
    state, at = RunState(), 1000.0
    for event in run_events():
        at += 0.5
        apply(state, event, at)
        if isinstance(event, EpisodeChanged) and event.number >= 4 and event.state == last:
            return state
    raise AssertionError(f"no {last} in the sample run")


@pytest.mark.parametrize("width", [20, 40, 80, 140])
@pytest.mark.parametrize("height", [6, 12, 24, 50])
def test_every_frame_of_a_run_fits_the_terminal(width: int, height: int) -> None:
    state = RunState()
    for number, event in enumerate(run_events()):
        apply(state, event, 1000.0 + number)
        if number % 97 == 0 or isinstance(event, EpisodeChanged):
            lines = _drawn(state, width, height)
            assert len(lines) < height
            assert max(len(line) for line in lines) <= width


def test_stages_show_their_time_reuse_and_results() -> None:
    lines = _drawn(_until("TRAINING"), 100, 40)
    assert any(line.startswith(" ✓ data") and "reused" in line for line in lines)
    assert any("sft" in line and "1:04" in line and "sampled 0.310" in line for line in lines)


def test_the_training_line_has_step_loss_pace_and_time_left() -> None:
    state = RunState()
    apply(state, StageStarted(stage="pretrain", job="pretrain", index=1, total=3), 1000.0)
    for event in run_events():
        if event.kind == "train_progress" and event.step <= 100:
            apply(state, event, 1000.0 + event.seconds)
            if event.step == 100:
                break
    text = "\n".join(_drawn(state, 80))
    assert "step 100/300" in text
    assert "9,102 tok/s" in text
    assert "33%  3:00 left" in text
    assert "1:30 elapsed, - left" in text, "two stages to come were never timed"
    assert "2 more stages" in text


def test_a_pause_says_why_how_to_go_on_and_for_how_long() -> None:
    state = _until("PAUSED")
    text = "\n".join(_drawn(state, 80, now=state.last_at + 125))
    assert "episode 4/10  PAUSED  for 2:05: moving the node to another rack" in text
    assert f"{ADMIN} resume" in text, "whole on one line: it is copied"
    assert "- left" in text, "a pause has no end to estimate"


def test_a_long_resume_command_is_shown_whole() -> None:
    state = _until("PAUSED")
    drawing = Drawing("demo", lambda: state.last_at)
    drawing.show(screen(state))
    stream = io.StringIO()
    Console(file=stream, width=60, height=24).print(drawing)
    assert f"{ADMIN} resume" in " ".join(stream.getvalue().split())


def test_a_long_note_is_shown_whole() -> None:
    state = _until("TRAINING")
    text = (
        "stopping: " + "the run's processes end; " * 6 + "the same command goes on where it stood"
    )
    apply(state, Note(text=text), state.last_at)
    lines = _drawn(state, 60)
    assert max(len(line) for line in lines) <= 60
    assert text in " ".join(" ".join(lines).split())


def test_the_last_lines_to_give_way_are_those_of_a_pause() -> None:
    text = "\n".join(_drawn(_until("PAUSED"), 80, 6))
    assert "PAUSED" in text
    assert f"{ADMIN} resume" in text


def test_pausing_shows_the_in_flight_count() -> None:
    text = "\n".join(_drawn(_until("PAUSING"), 80))
    assert "PAUSING  40 prompts in flight finish, no new ones start" in text


def test_markup_and_control_characters_in_notes_are_only_text() -> None:
    state = RunState()
    apply(state, Note(text="[red]x[/red]\x1b[2J\r\ny"), 1.0)
    assert "[red]x[/red] y" in "\n".join(_drawn(state, 80))


def test_the_live_view_draws_and_its_last_frame_stays(tmp_path: Path) -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100, height=40)
    with Recorder(tmp_path, [LiveView(console, "demo")]) as record:
        for event in run_events():
            record(event)
    last = stream.getvalue().split("Pairloop")[-1]
    assert "✓" in last
    assert "sampled 0.490" in last


def test_an_evaluation_has_a_line_while_it_runs_and_then_its_policy_has_the_numbers() -> None:
    state, at = RunState(), 1000.0
    for event in run_events():
        at += 0.5
        apply(state, event, at)
        if event.kind == "stage_started" and event.stage == "sft-evaluation":
            lines = _drawn(state, 100, 40)
            assert any("sft-evaluation" in line for line in lines)
            assert any("6 more stages" in line for line in lines)
            assert not any("pretrain-evaluation" in line for line in lines)
        if event.kind == "stage_finished" and event.stage == "sft-evaluation":
            break
    lines = _drawn(state, 100, 40)
    assert not any("evaluation" in line for line in lines)
    (line,) = (line for line in lines if line.startswith(" ✓ sft"))
    assert "sampled 0.310  greedy 0.400  held-out loss 2.32" in line


def test_a_policy_measured_by_its_loss_alone_shows_that() -> None:
    state = RunState()
    apply(state, Evaluated(stage="evaluate", policy="models/a", lm_loss=2.5), 1.0)
    (line,) = (line for line in _drawn(state, 80) if "evaluate" in line)
    assert line.endswith("  held-out loss 2.50")


def test_a_stage_that_waits_shows_its_reason_and_no_spinner() -> None:
    state = RunState()
    apply(state, StageStarted(stage="labels", job="annotate", index=1, total=2), 1.0)
    apply(state, StageWaiting(stage="labels", reason="12 of 200\npairs"), 2.0)
    lines = _drawn(state, 80)
    assert [line.split() for line in lines[1:]] == [
        ["○", "labels", "-", "waiting", "12", "of", "200", "pairs"],
        ["·", "1", "more", "stage"],
    ]


def test_a_stream_that_is_no_terminal_gets_the_plain_view() -> None:
    assert isinstance(view_for(io.StringIO()), PlainView)


def test_a_terminal_without_unicode_gets_ascii() -> None:
    state = _until("PAUSED")
    drawing = Drawing("demo", lambda: state.last_at)
    drawing.show(screen(state))
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    console = Console(file=stream, width=80, height=24, force_terminal=True, color_system=None)
    console.print(drawing)
    stream.flush()
    lines = stream.buffer.getvalue().decode("ascii").splitlines()
    assert any(line.startswith(" + sft") for line in lines)
    assert max(len(line) for line in lines) <= 80


def test_the_last_frame_of_a_run_that_failed_shows_no_spinner() -> None:
    state = _until("TRAINING")
    drawing = Drawing("demo", lambda: state.last_at + 99.0)
    drawing.show(screen(state))
    drawing.end()
    stream = io.StringIO()
    Console(file=stream, width=80, height=40).print(drawing)
    lines = stream.getvalue().splitlines()
    assert " left" not in lines[0]
    assert any(line.startswith(" ■ online_dpo") for line in lines)


class Clock:
    """Moves when it is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def _plain(events: list[Event], seconds_each: float) -> list[str]:
    stream, clock, state = io.StringIO(), Clock(), RunState()
    view = PlainView(stream, every_s=8.0, clock=clock)
    view.start()
    for event in events:
        clock.now += seconds_each
        apply(state, event, clock.now)
        view.handle(event, state)
    view.stop()
    return stream.getvalue().splitlines()


def test_plain_lines_of_a_run_are_few_and_printable() -> None:
    lines = _plain(list(run_events()), seconds_each=0.0)
    assert all(line.isprintable() for line in lines)
    assert lines[:5] == [
        "[1/11] data: reused -> runs/demo/data",
        "[2/11] pretrain: started",
        "warning: pretrain: grad_norm 14.2 clipped to 1.0",
        "pretrain: done in 5:12 -> runs/demo/pretrain",
        "[3/11] pretrain-evaluation: started",
    ]
    assert [line for line in lines if "sft-evaluation" in line] == [
        "[5/11] sft-evaluation: started",
        "sft-evaluation: sampled 0.310 (n=1024), greedy 0.400 (n=256), held-out loss 2.32",
        "sft-evaluation: done in 12 s -> runs/demo/sft-evaluation",
    ]
    assert sum(line.startswith("episode") and "done" in line for line in lines) == 10
    assert not any("step" in line for line in lines), "no time passed: no progress is due"


def test_plain_progress_comes_about_every_eight_seconds() -> None:
    events = [e for e in run_events() if getattr(e, "stage", "") == "sft"]
    lines = [line for line in _plain(events, seconds_each=1.0) if "step" in line]
    assert len(lines) == pytest.approx(300 / 8, abs=2)
    assert "tokens/s" in lines[-1]
    assert "left" in lines[-1]


def test_plain_pause_is_said_once_with_its_reason_and_way_out() -> None:
    lines = _plain(list(run_events()), seconds_each=0.0)
    moves = [line for line in lines if line.startswith("episode 4/10") and "done" not in line]
    assert moves == [
        "episode 4/10: PAUSING: 40 prompts in flight finish, no new ones start",
        f"episode 4/10: PAUSED (moving the node to another rack); to go on: {ADMIN} resume",
        "episode 4/10: SAMPLING, resumed",
    ]


def test_plain_notes_hold_no_control_characters() -> None:
    assert _plain([Note(text="a\x1b[31mb\nc\x00", level="warning")], 0.0) == ["warning: a b c"]


def test_a_run_in_which_everything_is_reused_has_one_line_a_stage() -> None:
    lines = _plain(list(reused_events()), seconds_each=0.0)
    assert len(lines) == 11
    assert lines[:5] == [
        "[1/11] data: reused -> runs/demo/data",
        "[2/11] pretrain: reused -> runs/demo/pretrain",
        "[3/11] pretrain-evaluation: reused, sampled 0.020 (n=1024), greedy 0.110 (n=256), "
        "held-out loss 2.31 -> runs/demo/pretrain-evaluation",
        "[4/11] sft: reused -> runs/demo/sft",
        "[5/11] sft-evaluation: reused, sampled 0.310 (n=1024), greedy 0.400 (n=256), "
        "held-out loss 2.32 -> runs/demo/sft-evaluation",
    ]


def test_a_single_evaluation_is_said_once() -> None:
    result = evaluation(random.Random(0), "sft").model_copy(
        update={"stage": "evaluate", "policy": "models/sft"}
    )
    done = StageFinished(
        stage="evaluate",
        job="evaluate",
        seconds=3.0,
        reused=False,
        folder="runs/evaluate/evaluate",
        metrics={"loss": 2.3, "sampled": 0.31},
    )
    started = StageStarted(stage="evaluate", job="evaluate", index=1, total=1)
    assert _plain([started, result, done], 0.0) == [
        "[1/1] evaluate: started",
        "evaluate: sampled 0.310 (n=1024), greedy 0.400 (n=256), held-out loss 2.32",
        "evaluate: done in 3.0 s -> runs/evaluate/evaluate",
    ]


def test_an_evaluation_holds_what_was_measured_and_no_more() -> None:
    loss = Evaluated(stage="evaluate", policy="models/sft", lm_loss=2.3)
    greedy = Evaluated(stage="evaluate", policy="models/sft", greedy=0.5, greedy_n=4)
    assert _plain([loss, greedy], 0.0) == [
        "evaluate: held-out loss 2.30",
        "evaluate: greedy 0.500 (n=4)",
    ]


def test_plain_waiting_says_for_what() -> None:
    started = StageStarted(stage="labels", job="annotate", index=1, total=2)
    waiting = StageWaiting(stage="labels", reason="12 of 200 pairs are annotated")
    assert _plain([started, waiting], 0.0) == [
        "[1/2] labels: started",
        "labels: waiting: 12 of 200 pairs are annotated",
    ]


def _episode(number: int, state: State, dispatched: int, reason: str = "") -> EpisodeChanged:
    return EpisodeChanged(
        stage="online_dpo",
        number=number,
        total=2,
        state=state,
        prompts=8,
        dispatched=dispatched,
        in_flight=2,
        paired=dispatched - 3,
        dropped={"tie": 1},
        reason=reason,
    )


def test_plain_counters_come_with_time_and_a_failure_at_once() -> None:
    sampling = [_episode(1, State.SAMPLING, sent) for sent in (4, 5, 6)]
    failed = _episode(1, State.FAILED, 6, "rollout-0 is gone")
    assert _plain([*sampling, failed], 5.0) == [
        "episode 1/2: SAMPLING: 5/8 prompts sent, 2 pairs, 1 dropped, 2 in flight",
        "episode 1/2: FAILED: rollout-0 is gone",
    ]


def test_plain_pause_is_said_again_every_minute() -> None:
    paused = [_episode(1, State.PAUSED, 4) for _ in range(4)]
    assert _plain(paused, 31.0) == [
        "episode 1/2: PAUSED (no reason given)",
        "episode 1/2: PAUSED: still waiting to be resumed",
    ]


def test_plain_repair_of_weights_is_a_warning() -> None:
    repaired = WeightsPublished(
        stage="online_dpo",
        version=3,
        workers=2,
        bytes=10,
        seconds=0.1,
        repaired=1,
        max_canary_difference=0.0,
    )
    assert _plain([repaired, repaired.model_copy(update={"repaired": 0})], 0.0) == [
        "warning: online_dpo: version 3: 1 of 2 workers needed a second full sync"
    ]
