"""summary.json, the verdict, the estimates and the final table."""

import io
import json

import pytest

from services.telemetry.format import count, duration, number, one_line, size, sparkline
from services.telemetry.record.changes import interval
from services.telemetry.record.events import (
    EpisodeFinished,
    Evaluated,
    Note,
    StageFinished,
    StageStarted,
    StageWaiting,
    TrainProgress,
)
from services.telemetry.record.reduce import apply
from services.telemetry.record.state import RunState
from services.telemetry.record.verdict import verdict
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
    """Stages as (name, policy it trained, sampled accuracy, answers)."""
    state = RunState()
    for index, (stage, policy, sampled, n) in enumerate(rows, start=1):
        started = StageStarted(stage=stage, job="sft", index=index, total=len(rows), policy=policy)
        apply(state, started)
        apply(state, Evaluated(stage=stage, sampled=sampled, sampled_n=n))
    return state


def test_summary_is_json_with_every_stage_in_order(whole: RunState) -> None:
    result = summary(whole, {"name": "demo", "seed": 3, "versions": {"torch": "2.13.0"}})
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert list(result["stages"]) == list(whole.stages)
    assert (result["run"]["seed"], result["run"]["versions"]) == (3, {"torch": "2.13.0"})
    # A second an event; one of them passed while the fourth episode was paused.
    assert result["run"]["seconds"] == whole.last_at - 1000.0 - 1.0
    assert result["run"]["paused_seconds"] == 1.0
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


def test_the_measured_peak_stands_beside_the_planned_one() -> None:
    told = summary(RunState(), {"peak_memory_bytes": 7, "planned_memory_bytes": 8})["run"]
    assert (told["peak_memory_bytes"], told["planned_memory_bytes"]) == (7, 8)
    assert summary(RunState(), {})["run"]["planned_memory_bytes"] is None


def test_verdict_credits_each_stage_with_what_it_changed_itself(whole: RunState) -> None:
    lines = verdict(whole)
    assert lines[0] == (
        "pretrain: 2% right when sampled (n=1024), 11% right greedily, held-out loss 2.31 nats a"
        " token."
    )
    online = next(line for line in lines if line.startswith("online_dpo"))
    # From offline DPO's 0.41, not from SFT's 0.31.
    assert online.startswith("online_dpo gained sampled accuracy 0.41 to 0.49; no clear change of ")
    assert "held-out loss 2.32 nats a token" in online  # nothing moved: one number
    assert online.endswith("; mean reward -0.151 in episode 1 to 0.820 in episode 10.")


def test_verdict_tells_what_a_gain_cost() -> None:
    state = _evaluated(("pretrain", "", 0.0, 2048), ("sft", "pretrain", 0.33, 2048))
    for stage, loss in (("pretrain", 4.99), ("sft", 14.1)):
        found = state.stages[stage].evaluation
        assert found is not None
        state.stages[stage].evaluation = found.model_copy(update={"lm_loss": loss})
    assert verdict(state)[1] == (
        "sft gained sampled accuracy 0.00 to 0.33; cost held-out loss 5.0 to 14.1 nats a token."
    )


def test_verdict_says_when_chance_could_make_the_difference() -> None:
    close = _evaluated(("sft", "", 0.31, 100), ("dpo", "sft", 0.36, 100))
    assert verdict(close)[1] == "dpo: no clear change of sampled accuracy 0.31 to 0.36."
    clear = _evaluated(("sft", "", 0.31, 2000), ("dpo", "sft", 0.36, 2000))
    assert verdict(clear)[1] == "dpo gained sampled accuracy 0.31 to 0.36."
    uncounted = _evaluated(("a", "", 0.2, 0), ("b", "a", 0.3, 0))
    assert verdict(uncounted)[1] == "b gained sampled accuracy 0.20 to 0.30."


def test_verdict_tells_a_fall_as_a_fall_and_doubts_the_run() -> None:
    worse = _evaluated(("sft", "", 0.5, 1000), ("dpo", "sft", 0.4, 1000))
    assert verdict(worse) == [
        "Doubtful: dpo: sampled accuracy fell: 0.50 to 0.40.",
        "sft: 50% right when sampled (n=1000).",
        "dpo cost sampled accuracy 0.50 to 0.40.",
    ]


def test_verdict_compares_with_a_policy_that_the_run_only_measured() -> None:
    state = _evaluated(("policy-evaluation", "", 0.2, 1000), ("dpo", "models/a", 0.3, 1000))
    found = state.stages["policy-evaluation"].evaluation
    assert found is not None
    state.stages["policy-evaluation"].evaluation = found.model_copy(update={"policy": "models/a"})
    assert verdict(state)[1] == "dpo gained sampled accuracy 0.20 to 0.30."


def test_verdict_of_branches_compares_each_with_its_own_trunk() -> None:
    state = _evaluated(("sft", "", 0.3, 2000), ("a", "sft", 0.4, 2000), ("b", "sft", 0.2, 2000))
    assert verdict(state)[-2:] == [
        "a gained sampled accuracy 0.30 to 0.40.",
        "b cost sampled accuracy 0.30 to 0.20.",
    ]


def test_verdict_of_a_policy_from_elsewhere_names_its_stage() -> None:
    state = RunState()
    evaluated = Evaluated(stage="evaluate", policy="models/a", sampled=0.5, sampled_n=9, greedy=0.6)
    apply(state, evaluated)
    assert verdict(state) == ["evaluate: 50% right when sampled (n=9), 60% right greedily."]


def test_verdict_of_training_alone_is_its_reward_or_its_loss() -> None:
    assert verdict(_running(1, 3)) == []
    trained = RunState()
    for step, loss in ((1, 2.5), (10, 1.25)):
        progress = TrainProgress(
            stage="sft",
            step=step,
            steps=10,
            tokens=200 * step,
            seconds=1.0,
            metrics={"loss": loss},
        )
        apply(trained, progress)
    assert verdict(trained) == ["sft: training loss 2.50 to 1.25 in 10 steps and 2k tokens."]
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
        if episode == 1:
            assert verdict(trained)[1] == "online: mean reward 0.500 in episode 1."
    assert verdict(trained)[1] == ("online: mean reward 0.500 in episode 1 to 0.750 in episode 2.")


def test_verdict_of_stages_without_evaluation_is_what_they_made() -> None:
    state = RunState()
    made = {
        "data": {"texts": 69.0, "heldout_prompts": 1024.0},
        "sft": {"loss": 1.25, "steps": 30.0, "tokens": 4000.0, "seconds": 1.5},
        "preferences": {"pairs": 1432.0, "heldout_pairs": 104.0, "prompts": 768.0}
        | {"dropped_margin": 30.0, "dropped_tie": 2.0, "reward_mean": 0.2},
        "reward_model": {"trained_pairs": 1430.0, "too_long": 2.0, "heldout_pairs": 104.0}
        | {"heldout_accuracy": 0.755, "heldout_loss": 0.512},
    }
    for index, (name, metrics) in enumerate(made.items(), start=1):
        apply(state, StageStarted(stage=name, job=name, index=index, total=4))
        finished = StageFinished(
            stage=name, job=name, seconds=1.0, reused=False, folder=name, metrics=metrics
        )
        apply(state, finished)
    assert verdict(state) == [
        "data: 69 texts, 1,024 heldout prompts.",
        "sft: training loss 1.25 at the end of 30 steps.",
        "preferences: 1,432 pairs and 104 held out from 768 prompts, without a pair: margin 30,"
        " tie 2.",
        "reward_model: orders 76% of held-out pairs rightly (n=104), held-out loss 0.512, 1.43k"
        " pairs, 2 more were longer than max_length.",
    ]
    stream = io.StringIO()
    write_final_table(state, stream)
    assert " - " not in stream.getvalue()


def test_a_stage_that_waits_says_so_and_why() -> None:
    state = RunState()
    apply(state, StageStarted(stage="labels", job="annotate", index=1, total=2))
    apply(state, StageWaiting(stage="labels", reason="12 of 200 pairs are annotated"))
    assert summary(state, {})["stages"]["labels"]["waiting"] == "12 of 200 pairs are annotated"
    stream = io.StringIO()
    write_final_table(state, stream)
    lines = stream.getvalue().splitlines()
    assert ["labels", "waiting"] in [line.split() for line in lines]
    assert lines[-1] == "labels is waiting: 12 of 200 pairs are annotated"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_final_table_on_a_terminal_has_its_width() -> None:
    stream = Terminal()
    state = _evaluated(("sft", "", 0.31, 100))
    write_final_table(state, stream)
    assert "sampled acc" in stream.getvalue()
    assert "held-out loss" not in stream.getvalue()  # no stage has a number there


def test_warnings_stand_whole_at_the_end_on_a_terminal_once_each() -> None:
    state = _evaluated(("dpo", "", 0.31, 100))
    lost = "episode 2: 2 of 32 prompts were lost to an error: 2 x " + "a long cause " * 12
    for text in ("an old one", *(f"warning {n}" for n in range(4)), lost, lost):
        apply(state, Note(stage="dpo", text=text, level="warning"))
    apply(state, Note(stage="dpo", text="KL blew up", level="warning", doubt="kl"))
    apply(state, Note(stage="dpo", text="only a word"))
    stream = Terminal()
    write_final_table(state, stream)
    words = one_line(stream.getvalue())
    assert words.count(f"warning: dpo: {lost.strip()}") == 1
    assert words.count("warning: dpo:") == 6
    assert "KL blew up" not in words
    assert "only a word" not in words
    plain = io.StringIO()  # there every warning had its own line when it came
    write_final_table(state, plain)
    assert "warning" not in plain.getvalue()


def test_verdict_of_one_policy_and_of_none() -> None:
    one = verdict(_evaluated(("sft", "", 0.31, 100)))
    assert one == ["sft: 31% right when sampled (n=100)."]
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


def test_a_replay_hands_out_no_weights_and_says_nothing_of_them() -> None:
    state = RunState()
    apply(state, StageStarted(stage="replay_dpo", job="replay_dpo", index=1, total=1))
    done = {"number": 1, "total": 1, "version": 1, "pairs": 24, "dropped": {}, "metrics": {}}
    apply(state, EpisodeFinished.model_validate({"stage": "replay_dpo"} | done))
    stream = io.StringIO()
    write_final_table(state, stream)
    assert "replay_dpo: 1 episode; 24 pairs trained; 0 groups dropped\n" in stream.getvalue()


def test_an_evaluation_of_a_policy_from_elsewhere_has_its_own_row() -> None:
    state = RunState()
    apply(state, StageStarted(stage="evaluate", job="evaluate", index=1, total=1))
    apply(state, Evaluated(stage="evaluate", policy="models/a", sampled=0.5, sampled_n=10))
    done = StageFinished(stage="evaluate", job="evaluate", seconds=4.0, reused=False, folder="f")
    apply(state, done)
    stream = io.StringIO()
    write_final_table(state, stream)
    rows = [line.split() for line in stream.getvalue().splitlines()]
    assert ["evaluate", "4.0", "s", "0.500"] in rows


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
