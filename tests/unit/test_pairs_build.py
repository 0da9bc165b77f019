"""Pairs with their provenance, the staleness bound, figures and examples of an episode."""

import random

import pytest

from pairloop.data.v1.pair_pb2 import Score
from pairloop.data.v1.rollout_pb2 import (
    FINISH_REASON_LENGTH,
    FINISH_REASON_STOP,
    ChatMessage,
    Prompt,
    Rollout,
    Sample,
    VersionSpan,
)
from services.errors import DataError
from services.pairs.build import make_pair, stale
from services.pairs.sampled_examples import Examples
from services.pairs.select import Selection
from services.pairs.stats import EpisodeStats, group_row, merge


def sample(index: int, text: str, versions: list[int], cut: bool = False) -> Sample:
    return Sample(
        index=index,
        text=text,
        token_ids=list(range(len(text))),
        finish_reason=FINISH_REASON_LENGTH if cut else FINISH_REASON_STOP,
        policy_versions=[VersionSpan(version=v, token_count=1) for v in versions],
    )


def rollout(index: int = 0, versions: list[int] | None = None) -> Rollout:
    versions = versions or [3]
    return Rollout(
        prompt=Prompt(
            id=f"r/e4/p{index}",
            episode=4,
            index=index,
            messages=[ChatMessage(role="user", content=f"question {index}")],
            metadata={"skill": "sort"},
        ),
        samples=[sample(0, "abcd", versions), sample(1, "ab", [3], cut=True), sample(2, "ab", [3])],
        worker_id="rollout-1",
    )


SCORES = [Score(total=t, parts={"model": t, "checker": 1.0}) for t in (2.0, -1.0, 0.5)]
SELECTION = Selection(chosen=0, rejected=1, margin=3.0, rule="best-worst", unique_answers=2)


def test_a_pair_says_where_it_comes_from() -> None:
    pair = make_pair(rollout(7, [2, 3]), SCORES, SELECTION, "1.0*checker")
    assert (pair.id, pair.prompt.index, pair.margin, pair.length_gap) == ("r/e4/p7", 7, 3.0, 2)
    assert (pair.chosen.text, pair.rejected.text) == ("abcd", "ab")
    assert (pair.chosen_score.total, pair.rejected_score.total) == (2.0, -1.0)
    origin = pair.provenance
    assert (origin.min_policy_version, origin.max_policy_version) == (2, 3)
    assert (origin.rule, origin.group_size, origin.unique_answers) == ("best-worst", 3, 2)
    assert (origin.scorer, origin.rollout_worker) == ("1.0*checker", "rollout-1")
    assert [score.total for score in origin.group_scores] == [2.0, -1.0, 0.5]


def test_a_pair_names_the_weights_that_sampled_its_group() -> None:
    group = rollout(7, [2, 3])
    for number, each in enumerate(group.samples):
        each.policy_versions[-1].weights_sha256 = "b" if number == 2 else "a"
    found = make_pair(group, SCORES, SELECTION, "s").provenance.policy_versions
    assert [(s.version, s.weights_sha256, s.token_count) for s in found] == [
        (2, "", 1),
        (3, "a", 2),
        (3, "b", 1),
    ]


@pytest.mark.parametrize(
    ("versions", "max_staleness", "expected"),
    [([3], 0, False), ([2, 3], 0, True), ([2, 3], 1, False), ([1, 3], 1, True), ([0], 3, False)],
)
def test_the_oldest_token_decides_staleness(
    versions: list[int], max_staleness: int, expected: bool
) -> None:
    group = rollout(versions=versions)
    assert not stale(group)  # of a writer that says nothing of it
    group.prompt.max_staleness = max_staleness
    assert stale(group) is expected


def test_samples_must_name_their_version() -> None:
    broken = rollout()
    del broken.samples[1].policy_versions[:]
    with pytest.raises(DataError, match="r/e4/p0: sample 1 names no policy version"):
        stale(broken)
    del broken.samples[:]
    with pytest.raises(DataError, match="holds no samples"):
        stale(broken)


def test_a_groups_figures() -> None:
    pair = make_pair(rollout(), SCORES, SELECTION, "s")
    row = group_row(rollout(), SCORES, pair)
    assert row == pytest.approx(
        {
            "reward_mean": 0.5,
            "reward_max": 2.0,
            "reward_min": -1.0,
            "reward_model": 0.5,
            "reward_checker": 1.0,
            "unique_answers": 2.0,
            "answer_tokens": 8 / 3,
            "truncated": 1 / 3,
            "margin": 3.0,
            "length_gap": 2.0,
        }
    )
    assert "margin" not in group_row(rollout(), SCORES, None)


def test_an_episode_counts_a_prompt_once_in_any_order() -> None:
    rows = [{"reward_mean": 0.1 * i, **({"margin": 1.0 + i} if i % 2 else {})} for i in range(9)]
    forward, shuffled = EpisodeStats(), EpisodeStats()
    order = list(range(9))
    random.Random(1).shuffle(order)
    for i in range(9):
        forward.add(1, i, rows[i])
        shuffled.add(1, order[i], rows[order[i]])
        shuffled.add(1, order[i], {"reward_mean": 99.0})
    assert forward.summary(1) == shuffled.summary(1)
    assert forward.summary(1) == pytest.approx(
        {"groups": 9.0, "pairs": 4.0, "reward_mean": 0.4, "margin": 5.0}
    )
    assert forward.summary(2) == {"groups": 0.0, "pairs": 0.0}


def test_workers_figures_go_together_by_weight() -> None:
    one = {"groups": 3.0, "pairs": 1.0, "reward_mean": 1.0, "margin": 4.0}
    two = {"groups": 1.0, "pairs": 3.0, "reward_mean": 5.0, "margin": 0.0}
    idle = {"groups": 0.0, "pairs": 0.0}
    assert merge([one, two, idle]) == {
        "groups": 4.0, "pairs": 4.0, "reward_mean": 2.0, "margin": 1.0,
    }  # fmt: skip
    assert merge([]) == {"groups": 0.0, "pairs": 0.0}


def test_old_episodes_are_let_go() -> None:
    stats = EpisodeStats()
    for episode in range(1, 20):
        stats.add(episode, 0, {"reward_mean": 1.0})
    assert stats.summary(1)["groups"] == 0.0
    assert stats.summary(19)["groups"] == 1.0


def test_examples_are_the_first_prompts_whatever_the_order() -> None:
    examples = Examples("online")
    order = list(range(20))
    random.Random(2).shuffle(order)
    for i in order:
        examples.add(make_pair(rollout(i), SCORES, SELECTION, "s"))
    taken = examples.take(4)
    assert [example.prompt for example in taken] == [f"question {i}" for i in range(6)]
    assert taken[0].parts == {"checker": (1.0, 1.0), "model": (2.0, -1.0)}
    assert (taken[0].chosen, taken[0].rejected, taken[0].stage) == ("abcd", "ab", "online")
    assert (taken[0].id, taken[0].versions) == ("r/e4/p0", "3")
    assert (taken[0].chosen_about, taken[0].rejected_about) == ("4 tokens", "2 tokens, cut")
    assert taken[0].messages == [{"role": "user", "content": "question 0"}]
    assert examples.take(4) == []


def test_examples_are_told_at_a_pause_and_the_new_ones_later() -> None:
    examples = Examples("online")
    for i in (9, 3):
        examples.add(make_pair(rollout(i), SCORES, SELECTION, "s"))
    assert [example.prompt for example in examples.take(4)] == ["question 3", "question 9"]
    examples.add(make_pair(rollout(1), SCORES, SELECTION, "s"))
    assert [example.prompt for example in examples.take(4)] == ["question 1"]
