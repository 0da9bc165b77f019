"""summary.json, the verdict, the estimates and the final table."""

import io
import json

import pytest

from services.telemetry.format import count, duration, number, size, sparkline
from services.telemetry.record.events import (
    EpisodeFinished,
    Evaluated,
    StageFinished,
    StageStarted,
    StageWaiting,
    TrainProgress,
)
from services.telemetry.record.reduce import apply
from services.telemetry.record.state import RunState
from services.telemetry.record.verdict import interval, verdict
from services.telemetry.report.summary import summary
from services.telemetry.views.estimate import run_left, stage_left, tokens_per_second
from services.telemetry.views.tables import write_final_table
from tests.sample_events import run_events


@pytest.fixture(scope="module")
def whole() -> RunState:
    state = RunState()
    for second, event in enumerate(run_events()):
        apply(state, event, 1000.0 + second)
    return state


def _evaluated(*rows: tuple[str, str, float, int]) -> RunState:
    state = RunState()
    for index, (stage, job, sampled, n) in enumerate(rows, start=1):
        apply(state, StageStarted(stage=stage, job=job, index=index, total=len(rows)))
        apply(state, Evaluated(stage=stage, sampled=sampled, sampled_n=n))
    return state


def test_summary_is_json_with_every_stage_in_order(whole: RunState) -> None:
    result = summary(whole, {"name": "demo", "seed": 3, "versions": {"torch": "2.13.0"}})
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert list(result["stages"]) == list(whole.stages)
    assert (result["run"]["seed"], result["run"]["versions"]) == (3, {"torch": "2.13.0"})
    assert result["run"]["seconds"] == whole.last_at - 1000.0
    assert result["stages"]["data"]["reused"] is True
    assert result["stages"]["sft"]["training"]["step"] == 300
    assert result["stages"]["sft"]["evaluation"]["sampled_n"] == 1024
    assert result["stages"]["sft"]["evaluation"]["skills"]["copy"]["in_preferences"] is False
    assert result["stages"]["sft"]["evaluation"]["policy"] == "sft"
    measuring = result["stages"]["sft-evaluation"]
    assert (measuring["job"], measuring["seconds"]) == ("evaluate", 12.0)
    assert (measuring["evaluates"], measuring["evaluation"]) == ("sft", None)


def test_summary_of_the_online_loop_adds_up(whole: RunState) -> None:
    online = summary(whole, {})["stages"]["online_dpo"]["online"]
    assert len(online["episodes"]) == 10
    assert online["prompts"] == 1280
    assert online["pairs"] + sum(online["dropped"].values()) == online["prompts"]
    assert online["dropped"]["margin"] == 20
    assert online["weights"]["published"] == 11
    assert online["weights"]["attestations"] == 22
    assert online["weights"]["repaired"] == 1
    assert 1e-6 < online["weights"]["max_canary_difference"] < 2e-6


def test_summary_of_nothing() -> None:
    result = summary(RunState(), {"error": "no"})
    assert result["stages"] == {}
    assert result["run"]["error"] == "no"


def test_verdict_compares_the_last_policy_with_sft(whole: RunState) -> None:
    result = verdict(whole)
    assert result[0] == (
        "Sampled accuracy rose from 0.31 after sft to 0.49 after online_dpo (greedy: 0.40 to 0.58)."
    )
    assert result[1].startswith("On skills outside the preference data: ")
    assert result[1].endswith(", no clear change.")
    assert result[2] == "Held-out language-model loss: 2.316 to 2.320 nats a token."


def test_verdict_says_when_chance_could_make_the_difference() -> None:
    close = _evaluated(("sft", "sft", 0.31, 100), ("dpo", "offline_dpo", 0.36, 100))
    assert verdict(close) == [
        "Sampled accuracy is 0.31 after sft and 0.36 after dpo: a difference that chance alone "
        "can make."
    ]
    clear = _evaluated(("sft", "sft", 0.31, 2000), ("dpo", "offline_dpo", 0.36, 2000))
    assert verdict(clear) == ["Sampled accuracy rose from 0.31 after sft to 0.36 after dpo."]


def test_verdict_tells_a_fall_as_a_fall() -> None:
    worse = _evaluated(("sft", "sft", 0.5, 1000), ("dpo", "offline_dpo", 0.4, 1000))
    assert verdict(worse) == ["Sampled accuracy fell from 0.50 after sft to 0.40 after dpo."]


def test_verdict_without_sft_compares_the_first_and_the_last() -> None:
    two = _evaluated(("a", "offline_dpo", 0.2, 0), ("b", "offline_dpo", 0.3, 0))
    assert verdict(two) == ["Sampled accuracy rose from 0.20 after a to 0.30 after b."]


def test_verdict_of_a_policy_from_elsewhere_names_it() -> None:
    state = RunState()
    evaluated = Evaluated(stage="evaluate", policy="models/a", sampled=0.5, sampled_n=9, greedy=0.6)
    apply(state, evaluated)
    assert verdict(state) == ["models/a answers 50% right when sampled, 60% greedily."]


def test_verdict_of_training_alone_is_its_reward_or_its_loss() -> None:
    assert verdict(_running(1, 3)) == []
    trained = RunState()
    for step, loss in ((1, 2.5), (10, 1.25)):
        progress = TrainProgress(
            stage="sft", step=step, steps=10, tokens=0, seconds=1.0, metrics={"loss": loss}
        )
        apply(trained, progress)
    assert verdict(trained) == ["The training loss of sft went from 2.50 to 1.25 in 10 steps."]
    for episode, reward in ((1, 0.5), (2, 0.75)):
        finished = EpisodeFinished(
            stage="online",
            number=episode,
            total=2,
            version=episode,
            pairs=1,
            dropped={},
            metrics={"reward_mean": reward},
        )
        apply(trained, finished)
    assert verdict(trained) == [
        "The mean reward went from 0.500 in episode 1 to 0.750 in episode 2 (online)."
    ]


def test_a_stage_that_waits_says_so_and_why() -> None:
    state = RunState()
    apply(state, StageStarted(stage="labels", job="annotate", index=1, total=2))
    apply(state, StageWaiting(stage="labels", reason="12 of 200 pairs are annotated"))
    assert summary(state, {})["stages"]["labels"]["waiting"] == "12 of 200 pairs are annotated"
    stream = io.StringIO()
    write_final_table(state, stream)
    lines = stream.getvalue().splitlines()
    assert ["labels", "waiting", "-", "-", "-"] in [line.split() for line in lines]
    assert lines[-1] == "labels is waiting: 12 of 200 pairs are annotated"


def test_the_final_table_on_a_terminal_has_its_width() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    write_final_table(RunState(), stream)
    assert "held-out loss" in stream.getvalue()


def test_verdict_of_one_policy_and_of_none() -> None:
    one = verdict(_evaluated(("sft", "sft", 0.31, 100)))
    assert one == ["sft answers 31% right when sampled."]
    assert verdict(RunState()) == []


def test_interval_is_wilsons() -> None:
    # scipy.stats.binomtest(5, 10).proportion_ci(method="wilson"): 0.23659, 0.76341
    assert interval(0.5, 10) == pytest.approx((0.23659, 0.76341), abs=1e-4)
    assert interval(0.0, 10)[0] == 0.0
    assert interval(0.0, 0) == (0.0, 1.0)


def test_the_final_table_as_plain_text(whole: RunState) -> None:
    stream = io.StringIO()
    write_final_table(whole, stream)
    text = stream.getvalue()
    assert "\x1b" not in text
    assert max(len(line) for line in text.splitlines()) <= 100
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.split()}
    assert rows["sft"] == ["1:04", "0.310", "0.400", "2.316"]
    assert rows["evaluations"] == ["(4)", "48", "s", "-", "-", "-"]
    assert "sft-evaluation" not in rows
    assert rows["copy"][0] == "*"
    assert "11 weight versions, 22 attestations, 1 repaired" in " ".join(text.split())


def test_an_evaluation_of_a_policy_from_elsewhere_has_its_own_row() -> None:
    state = RunState()
    apply(state, StageStarted(stage="evaluate", job="evaluate", index=1, total=1))
    apply(state, Evaluated(stage="evaluate", policy="models/a", sampled=0.5, sampled_n=10))
    done = StageFinished(stage="evaluate", job="evaluate", seconds=4.0, reused=False, folder="f")
    apply(state, done)
    stream = io.StringIO()
    write_final_table(state, stream)
    rows = [line.split() for line in stream.getvalue().splitlines()]
    assert ["evaluate", "4.0", "s", "0.500", "-", "-"] in rows


def _running(total: int, steps: int) -> RunState:
    state = RunState()
    apply(state, StageStarted(stage="sft", job="sft", index=1, total=total))
    for step in range(1, steps + 1):
        progress = TrainProgress(
            stage="sft", step=step, steps=50, tokens=step * 100, seconds=step * 2.0, metrics={}
        )
        apply(state, progress)
    return state


def test_time_left_is_by_pace_and_unknown_before_there_is_one() -> None:
    assert stage_left(_running(1, 1).stages["sft"]) is None
    state = _running(1, 10)
    assert stage_left(state.stages["sft"]) == 80.0
    assert run_left(state) == 80.0
    assert tokens_per_second(state.stages["sft"]) == 50.0


def test_time_left_before_anything_ran_is_unknown() -> None:
    assert run_left(RunState()) is None
    started = RunState()
    apply(started, StageStarted(stage="sft", job="sft", index=1, total=1))
    assert stage_left(started.stages["sft"]) is None
    assert tokens_per_second(started.stages["sft"]) is None


def test_a_finished_stage_takes_no_more_time() -> None:
    state = _running(1, 10)
    apply(state, StageFinished(stage="sft", job="sft", seconds=1.0, reused=False, folder="f"))
    assert stage_left(state.stages["sft"]) == 0.0


def test_time_left_of_the_run_needs_every_stage_to_come() -> None:
    state = _running(2, 10)
    assert run_left(state) is None
    later = StageFinished(stage="dpo", job="offline_dpo", seconds=40.0, reused=False, folder="f")
    apply(state, later)
    state.stages["dpo"].index = 2
    assert run_left(state) == 120.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (4.23, "4.2 s"),
        (9.97, "10 s"),
        (59.7, "1:00"),
        (187, "3:07"),
        (3723, "1:02:03"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_numbers_keep_three_digits() -> None:
    shown = [number(x) for x in (0.0, 1.2345, -0.0123, 123.4, 1e-6, 250_000.0)]
    assert shown == ["0", "1.23", "-0.0123", "123", "1e-6", "2.5e5"]
    assert number(None) == "-"
    assert [count(x) for x in (950, 12_345, 3_550_000)] == ["950", "12.3k", "3.55M"]
    assert [size(x) for x in (512, 1_572_864)] == ["512 B", "1.5 MiB"]


def test_sparkline_runs_from_lowest_to_highest() -> None:
    assert sparkline([0.0, 0.5, 1.0]) == "▁▅█"
    assert sparkline([2.0, 2.0]) == "▄▄"
    assert sparkline([]) == ""
    assert len(sparkline(list(range(40)), 16)) == 16
