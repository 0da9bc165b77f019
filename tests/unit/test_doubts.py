"""A run whose numbers went wrong says so: live, in the verdict and in the report."""

from pathlib import Path

import pytest

from services.telemetry.record.doubts import doubts
from services.telemetry.record.events import EpisodeFinished, StageFinished, TrainProgress
from services.telemetry.record.recorder import Recorder
from services.telemetry.record.reduce import apply
from services.telemetry.record.state import RunState
from services.telemetry.record.verdict import verdict
from services.telemetry.report.report import render_report
from services.telemetry.report.summary import summary
from tests.sample_events import run_events

HEALTHY = {
    "reward_mean": 0.4,
    "reward_max": 1.0,
    "reward_min": 0.0,
    "answer_tokens": 12.0,
    "kl": 0.8,
    "loss": 0.66,
    "dpo_margin": 0.1,
    "trained_pairs": 64.0,
}


def _episode(number: int, prompts_lost: int = 10, **metrics: float) -> EpisodeFinished:
    return EpisodeFinished(
        stage="online_dpo",
        number=number,
        total=6,
        version=number,
        pairs=128 - prompts_lost,
        dropped={"tie": prompts_lost},
        metrics=HEALTHY | metrics,
    )


def _state(*episodes: EpisodeFinished) -> RunState:
    state = RunState()
    for each in episodes:
        apply(state, each)
        state.stages["online_dpo"].episodes[each.number].prompts = 128
    return state


def test_a_healthy_run_has_no_doubts() -> None:
    state = RunState()
    for event in run_events():
        apply(state, event)
    assert doubts(state) == []
    assert doubts(_state(*(_episode(n) for n in range(1, 7)))) == []


@pytest.mark.parametrize(
    ("episodes", "kind", "words"),
    [
        ([_episode(1), _episode(2, kl=26.0)], "kl", "26.0 nats an answer in episode 2"),
        ([_episode(1), _episode(2, loss=1.94)], "loss", "the DPO loss of episode 2 is 1.94"),
        ([_episode(1, prompts_lost=100)], "dropped", "100 of 128 groups of episode 1 gave no pair"),
        (
            [_episode(n, reward_mean=0.4 - 0.1 * n) for n in range(1, 7)],
            "reward",
            "the mean reward fell: 0.250 in the first episodes, -0.150 in the last",
        ),
        (
            [_episode(1), _episode(2, answer_tokens=20.0, reward_mean=0.6)],
            "length",
            "answers grew from 12.0 to 20.0 tokens while the reward rose",
        ),
    ],
)
def test_a_bad_run_is_doubted(episodes: list[EpisodeFinished], kind: str, words: str) -> None:
    (found,) = doubts(_state(*episodes))
    assert (found.stage, found.kind) == ("online_dpo", kind)
    assert words in found.text
    assert verdict(_state(*episodes))[0] == f"Doubtful: online_dpo: {found.text}."


@pytest.mark.parametrize(
    "episode",
    [
        _episode(1, kl=26.0, answer_tokens=400.0),  # 0.07 nats a token
        _episode(1, kl=9.0, answer_tokens=4.0),
        _episode(1, loss=0.71),
        _episode(1, loss=1.94, trained_pairs=4.0),
        _episode(1, prompts_lost=80),
        _episode(1, answer_tokens=40.0),  # nothing to compare with
    ],
)
def test_what_noise_or_length_explains_is_no_doubt(episode: EpisodeFinished) -> None:
    assert doubts(_state(episode)) == []


def test_a_policy_that_starts_far_from_its_reference_is_no_fault_of_the_learning_rate() -> None:
    (found,) = doubts(_state(_episode(1, kl=95.6), _episode(2, kl=109.0)))
    assert found.text.startswith("KL to the reference is 95.6 nats an answer before the first")
    assert "lr" not in found.text


def test_few_groups_may_have_less_reward_by_their_prompts_alone() -> None:
    falling = [_episode(n, reward_mean=0.45 - 0.05 * n, groups=12.0) for n in range(1, 7)]
    assert doubts(_state(*falling)) == []
    many = [_episode(n, reward_mean=0.45 - 0.05 * n, groups=512.0) for n in range(1, 7)]
    (found,) = doubts(_state(*many))
    assert found.text == "the mean reward fell: 0.375 in the first episodes, 0.175 in the last"


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        ({"heldout_dpo_margin": 0.1, "heldout_loss": 0.9}, "the DPO loss on held-out pairs is 0.9"),
        ({"heldout_dpo_margin": 0.1, "heldout_loss": 0.7}, ""),
        ({"heldout_margin": 0.1, "heldout_accuracy": 0.55}, "it orders 55% of 104 held-out pairs"),
        ({"heldout_margin": 0.1, "heldout_accuracy": 0.65}, ""),
        ({"heldout_margin": 0.1, "heldout_accuracy": 0.4, "heldout_pairs": 6.0}, ""),
    ],
)
def test_what_held_out_pairs_say(metrics: dict[str, float], words: str) -> None:
    state = RunState()
    finished = StageFinished(
        stage="training",
        job="offline_dpo",
        seconds=1.0,
        reused=False,
        folder="x",
        metrics={"heldout_pairs": 104.0} | metrics,
    )
    apply(state, finished)
    assert [found.text[: len(words)] for found in doubts(state)] == ([words] if words else [])


def test_a_number_that_is_not_finite_is_a_doubt_once_also_after_a_restart(tmp_path: Path) -> None:
    for number in (1, 2):
        with Recorder(tmp_path) as record:
            record(_episode(number, kl=float("inf")))
            found = summary(record.state, {})["run"]
    assert found["doubts"] == [
        {"stage": "online_dpo", "kind": "not finite: kl", "text": "kl is not finite"}
    ]
    assert found["warnings"] == ["online_dpo: kl is not finite"]
    assert found["verdict"].startswith("Doubtful: online_dpo: kl is not finite.")


def test_offline_dpo_above_ln_2_at_its_end_is_doubted() -> None:
    state = RunState()
    for step in range(1, 9):
        metrics = {"loss": 0.6 if step < 7 else 0.9, "dpo_margin": -0.5}
        progress = TrainProgress(
            stage="offline_dpo", step=step, steps=8, tokens=0, seconds=1.0, metrics=metrics
        )
        apply(state, progress)
    assert doubts(state) == []  # it is not at its end yet
    finished = StageFinished(
        stage="offline_dpo", job="offline_dpo", seconds=1.0, reused=False, folder="x"
    )
    apply(state, finished)
    (found,) = doubts(state)
    assert found.text.startswith("the DPO loss ends at 0.900, above ln 2 = 0.693")


def test_a_doubt_is_warned_of_once_also_after_a_restart(tmp_path: Path) -> None:
    with Recorder(tmp_path) as record:
        record(_episode(1))
        record(_episode(2, kl=26.0))
        record(_episode(3, kl=40.0))
    with Recorder(tmp_path) as record:
        record(_episode(4, kl=50.0))
        warnings = summary(record.state, {})["run"]["warnings"]
        page = render_report(record.state, {})
    assert warnings == [
        "online_dpo: KL to the reference blew up: 26.0 nats an answer in episode 2; lower"
        " train.optimizer.lr or raise dpo.beta"
    ]
    assert "Something in this run looks wrong." in page
    assert "26.0 nats an answer in episode 2" in page.split("</header>")[0]
