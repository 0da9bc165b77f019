"""summary.json, the verdict, the estimates and the final table."""

import io
import json

import pytest

from services.telemetry.format import count, duration, number, sparkline
from services.telemetry.record.events import Evaluated, StageFinished, StageStarted, TrainProgress
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


def _evaluated(*told: tuple[str, str, float, int]) -> RunState:
    state = RunState()
    for index, (stage, job, sampled, n) in enumerate(told, start=1):
        apply(state, StageStarted(stage=stage, job=job, index=index, total=len(told)))
        apply(state, Evaluated(stage=stage, sampled=sampled, sampled_n=n))
    return state


def test_summary_is_json_with_every_stage_in_order(whole: RunState) -> None:
    told = summary(whole, {"name": "demo", "seed": 3, "versions": {"torch": "2.13.0"}})
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert list(told["stages"]) == list(whole.stages)
    assert (told["run"]["seed"], told["run"]["versions"]) == (3, {"torch": "2.13.0"})
    assert told["run"]["seconds"] == whole.last_at - 1000.0
    assert told["stages"]["data"]["reused"] is True
    assert told["stages"]["sft"]["training"]["step"] == 300
    assert told["stages"]["sft"]["evaluation"]["sampled_n"] == 1024
    assert told["stages"]["sft"]["evaluation"]["skills"]["copy"]["in_preferences"] is False


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
    told = summary(RunState(), {"error": "no"})
    assert told["stages"] == {}
    assert told["run"]["error"] == "no"


def test_verdict_compares_the_last_policy_with_sft(whole: RunState) -> None:
    told = verdict(whole)
    assert told[0].startswith("Sampled accuracy rose from 0.31 after sft to 0.49 after online_dpo")
    assert told[1].startswith("On skills outside the preference data: ")
    assert told[1].endswith(", no clear change.")
    assert told[2] == "Held-out language-model loss: 2.316 to 2.320 nats a token."


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


def test_verdict_of_one_policy_and_of_none() -> None:
    one = verdict(_evaluated(("sft", "sft", 0.31, 100)))
    assert one == ["sft answers 31% right when sampled."]
    assert verdict(RunState()) == []


def test_interval_is_wilsons() -> None:
    # scipy.stats.binomtest(5, 10).proportion_ci(method="wilson"): 0.23659, 0.76341
    assert interval(0.5, 10) == pytest.approx((0.23659, 0.76341), abs=1e-4)
    assert interval(0.0, 10)[0] == 0.0


def test_the_final_table_as_plain_text(whole: RunState) -> None:
    stream = io.StringIO()
    write_final_table(whole, stream)
    text = stream.getvalue()
    assert "\x1b" not in text
    assert max(len(line) for line in text.splitlines()) <= 100
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.split()}
    assert rows["sft"] == ["1:04", "0.310", "0.400", "2.316"]
    assert rows["copy"][0] == "*"
    assert "11 weight versions, 22 attestations, 1 repaired" in " ".join(text.split())


def test_a_policy_that_is_only_evaluated_is_no_unfinished_stage() -> None:
    state = RunState()
    apply(state, Evaluated(stage="policy", sampled=0.5, sampled_n=10))
    stream = io.StringIO()
    write_final_table(state, stream)
    row = next(line for line in stream.getvalue().splitlines() if "policy" in line and "-" in line)
    assert row.split() == ["policy", "-", "0.500", "-", "-"]


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
    assert shown == ["0", "1.23", "-0.0123", "123", "1e-06", "2.5e+05"]
    assert [count(x) for x in (950, 12_345, 3_550_000)] == ["950", "12.3k", "3.55M"]


def test_sparkline_runs_from_lowest_to_highest() -> None:
    assert sparkline([0.0, 0.5, 1.0]) == "▁▅█"
    assert sparkline([2.0, 2.0]) == "▄▄"
    assert sparkline([]) == ""
    assert len(sparkline(list(range(40)), 16)) == 16
