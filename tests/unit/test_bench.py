"""What the benchmarks compute of what they measured; nothing here takes a time."""

import sys
from pathlib import Path

import pytest

from bench.measure import Outcome, alternate, medians, ratios, run_arm, spread, table
from bench.online_arms import recorded
from bench.online_vs_trl import compared
from bench.rewards import checked, score
from bench.time_to_reward import Curve


def test_spread_and_ratios_are_repeat_by_repeat() -> None:
    assert spread([3.0, 1.0, 2.0]) == {"min": 1.0, "median": 2.0, "max": 3.0}
    assert ratios([6.0, 1.0, 8.0], [2.0, 1.0, 4.0]) == {"min": 1.0, "median": 2.0, "max": 3.0}
    assert spread([0.123456])["median"] == 0.1235
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        ratios([1.0, 2.0], [1.0])


def test_medians_of_parts_that_not_every_step_has() -> None:
    assert medians([{"a": 1.0, "b": 2.0}, {"a": 3.0}, {"a": 5.0}]) == {"a": 3.0, "b": 0.0}


def test_arms_take_turns_and_the_order_turns_round() -> None:
    order: list[str] = []

    def arm(name: str) -> Outcome:
        order.append(name)
        return Outcome({"number": len(order)}, 0, 0.0)

    found = alternate({"ours": lambda _: arm("ours"), "trl": lambda _: arm("trl")}, 3)
    assert order == ["ours", "trl", "trl", "ours", "ours", "trl"]
    assert [run.result["number"] for run in found["ours"]] == [1, 4, 5]


def test_an_arm_is_its_last_line_and_the_memory_of_all_its_processes(tmp_path: Path) -> None:
    held = "held = bytearray(b'1' * (64 << 20)); import time; time.sleep(2)"
    program = tmp_path / "arm.py"
    program.write_text(
        "import subprocess, sys\n"
        f'subprocess.run([sys.executable, "-c", {held!r}], check=True)\n'
        'print("some words")\n'
        'print("{\\"steps\\": 2}")\n'
    )
    outcome = run_arm([sys.executable, program])
    assert outcome.result == {"steps": 2}
    assert 64 << 20 < outcome.peak_pss_bytes < 256 << 20
    assert len(outcome.processes) == 2


def test_an_arm_that_fails_says_what_it_printed(tmp_path: Path) -> None:
    program = tmp_path / "arm.py"
    program.write_text('print("out of room")\nraise SystemExit(3)\n')
    with pytest.raises(SystemExit, match=r"arm.py\nended with 3; it printed:\nout of room"):
        run_arm([sys.executable, program])


def test_a_table_shows_spreads() -> None:
    lines = table(["", "speed"], [["ours", spread([1.0, 2.0])], ["trl", 0.5]]).splitlines()
    assert lines == ["             speed", "ours  1.5 (1 to 2)", "trl            0.5"]


def test_a_run_is_read_from_its_record() -> None:
    parts = {"sample_seconds": 2.0, "train_seconds": 1.5, "sync_seconds": 0.25, "seconds": 1.0}
    metrics = parts | {"trained_pairs": 16.0}
    events: list[dict[str, object]] = [{"kind": "stage_started", "time": 3.0}]
    for version, at in enumerate((15.0, 20.0, 24.0)):
        events.append({"kind": "weights_published", "time": at, "version": version})
        if version:
            done = {"kind": "episode_finished", "time": at + 9, "version": version}
            events.append(done | {"metrics": metrics})
    result = recorded(events, began=2.0)
    assert result["start_seconds"] == 13.0
    assert result["pairs_per_step"] == 16.0
    shared = {"sampling": 2.0, "step": 1.0, "learner beside": 0.5, "publishing": 0.25}
    assert result["steps"] == [
        {"seconds": 5.0, **shared, "waiting": 1.25},
        {"seconds": 4.0, **shared, "waiting": 0.25},
    ]


def test_a_comparison_leaves_the_first_episode_out() -> None:
    def run(seconds: float, peak: int) -> Outcome:
        steps = [{"seconds": 100.0}, {"seconds": seconds}, {"seconds": seconds}]
        result = {"steps": steps, "pairs_per_step": 16, "start_seconds": 1.0}
        return Outcome(result, peak, 0.0)

    found = compared([run(2.0, 2**30), run(4.0, 2**30)], [run(8.0, 2**31), run(8.0, 2**31)])
    assert found["ours"]["pairs_per_second"] == {"min": 4.0, "median": 6.0, "max": 8.0}
    assert found["times_pairs_per_second"] == {"min": 2.0, "median": 3.0, "max": 4.0}
    assert found["times_peak_gib"]["median"] == 0.5


def test_rewards() -> None:
    assert checked("", " 4 2 ", {"answer": "4  2"}) == 1.0
    assert checked("", "42", {"answer": "4 2"}) == 0.0
    assert checked("", "b", {"answers": '["a", "b"]'}) == 1.0
    assert checked("", "aab\n", {"pattern": "a+b"}) == 1.0
    assert score("", "a", {}) != score("", "b", {})
    assert 0.0 <= score("", "a", {}) < 1.0


def test_a_curve_reaches_a_level_between_two_models() -> None:
    curve = Curve([0.0, 10.0, 20.0, 30.0], [0.0, 0.3, 0.3, 0.6], start_seconds=1.0, peak_gib=1.0)
    assert curve.smoothed() == pytest.approx([0.0, 0.2, 0.4, 0.6])
    assert curve.reached(0.3) == pytest.approx(15.0)
    assert curve.reached(0.0) == 0.0
    with pytest.raises(ValueError, match=r"ends below 0\.7"):
        curve.reached(0.7)
