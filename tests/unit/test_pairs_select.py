"""The pair rule, case by case and by its properties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pairloop.data.v1.pair_pb2 import (
    DROP_REASON_MARGIN,
    DROP_REASON_SINGLE_ANSWER,
    DROP_REASON_TIE,
)
from services.errors import DataError
from services.pairs.select import Selection, all_pairs, select

groups = st.lists(
    st.tuples(st.sampled_from([-1.5, -0.25, 0.0, 0.5, 1.0, 2.0]), st.sampled_from("abcdef")),
    min_size=1,
    max_size=40,
)


def test_best_against_worst() -> None:
    assert select([0.5, 2.0, -1.0], ["a", "b", "c"], 0.0, seed=0) == Selection(
        chosen=1, rejected=2, margin=3.0, rule="best-worst", unique_answers=3
    )


@pytest.mark.parametrize(
    ("scores", "answers", "min_margin", "reason"),
    [
        ([1.0], ["a"], 0.0, DROP_REASON_SINGLE_ANSWER),
        ([1.0, 0.0], ["a", "a"], 0.0, DROP_REASON_SINGLE_ANSWER),
        ([1.0, 1.0], ["a", "b"], 0.0, DROP_REASON_TIE),
        ([1.0, 0.9], ["a", "b"], 0.5, DROP_REASON_MARGIN),
    ],
)
def test_no_pair(scores: list[float], answers: list[str], min_margin: float, reason: int) -> None:
    assert select(scores, answers, min_margin, seed=0) == reason


def test_a_margin_at_the_bound_is_kept() -> None:
    assert isinstance(select([1.0, 0.5], ["a", "b"], 0.5, seed=0), Selection)


def test_equal_scores_go_to_the_lowest_index() -> None:
    picked = select([1.0, 0.0, 1.0, 0.0], ["a", "b", "c", "d"], 0.0, seed=0)
    assert isinstance(picked, Selection)
    assert (picked.chosen, picked.rejected) == (0, 1)


def test_the_worst_copy_of_the_best_answer_is_no_rival() -> None:
    picked = select([1.0, -1.0, 0.5], ["a", "a", "b"], 0.0, seed=0)
    assert isinstance(picked, Selection)
    assert (picked.chosen, picked.rejected, picked.margin) == (0, 2, 0.5)


def test_answers_may_be_token_ids() -> None:
    assert select([1.0, 0.0], [(1, 2), (1, 2)], 0.0, seed=0) == DROP_REASON_SINGLE_ANSWER


def test_a_large_group_holds_its_best_against_the_worst_of_five() -> None:
    scores = [float(i) for i in range(16)]
    answers = [str(i) for i in range(16)]
    picks = [select(scores, answers, 0.0, seed) for seed in range(200)]
    assert {(p.chosen, p.rule) for p in picks if isinstance(p, Selection)} == {
        (15, "best-worst-of-5")
    }
    worst = [p.rejected for p in picks if isinstance(p, Selection)]
    assert max(worst) <= 10  # at least four of the five rivals are above it
    assert len(set(worst)) > 4
    assert picks == [select(scores, answers, 0.0, seed) for seed in range(200)]
    small = select(scores[:15], answers[:15], 0.0, seed=3)
    assert isinstance(small, Selection)
    assert (small.rejected, small.rule) == (0, "best-worst")


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_broken_score_is_an_error(score: float) -> None:
    with pytest.raises(DataError, match="sample 1"):
        select([0.0, score], ["a", "b"], 0.0, seed=0)


def test_scores_and_answers_must_match() -> None:
    with pytest.raises(DataError, match="1 scores for 2 answers"):
        all_pairs([0.0], ["a", "b"], 0.0, limit=1, seed=0)


@given(groups, st.floats(0.0, 2.0), st.integers(0, 2**64 - 1))
def test_chosen_beats_rejected_with_another_answer(
    group: list[tuple[float, str]], min_margin: float, seed: int
) -> None:
    scores, answers = [s for s, _ in group], [a for _, a in group]
    picked = select(scores, answers, min_margin, seed)
    if isinstance(picked, Selection):
        assert scores[picked.chosen] == max(scores)
        assert picked.margin == scores[picked.chosen] - scores[picked.rejected] > 0.0
        assert picked.margin >= min_margin
        assert answers[picked.chosen] != answers[picked.rejected]
        assert picked.unique_answers == len(set(answers))
    else:
        assert (picked == DROP_REASON_SINGLE_ANSWER) == (len(set(answers)) == 1)


@given(
    st.lists(st.integers(-50, 50), min_size=2, max_size=15, unique=True),
    st.randoms(use_true_random=False),
)
def test_a_permutation_of_distinct_scores_keeps_the_pair(scores: list[int], random: object) -> None:
    order = list(range(len(scores)))
    random.shuffle(order)  # type: ignore[attr-defined]
    before = select([float(s) for s in scores], [str(s) for s in scores], 0.0, 0)
    after = select([float(scores[i]) for i in order], [str(scores[i]) for i in order], 0.0, 0)
    assert isinstance(before, Selection)
    assert isinstance(after, Selection)
    assert (order[after.chosen], order[after.rejected]) == (before.chosen, before.rejected)


@given(groups, st.integers(1, 12), st.integers(0, 99))
def test_all_pairs_are_distinct_and_ordered(
    group: list[tuple[float, str]], limit: int, seed: int
) -> None:
    scores, answers = [s for s, _ in group], [a for _, a in group]
    found = all_pairs(scores, answers, 0.5, limit, seed)
    texts = [frozenset((answers[p.chosen], answers[p.rejected])) for p in found]
    assert len(set(texts)) == len(found) <= limit
    assert all(len(pair) == 2 for pair in texts)
    assert all(p.margin == scores[p.chosen] - scores[p.rejected] >= 0.5 for p in found)
    assert found == all_pairs(scores, answers, 0.5, limit, seed)


def test_all_pairs_finds_every_pair_when_there_is_room() -> None:
    found = all_pairs([2.0, 1.0, 1.0, 0.0], ["a", "b", "c", "b"], 0.0, limit=9, seed=0)
    assert [(p.chosen, p.rejected, p.margin) for p in found] == [(0, 1, 1.0), (0, 2, 1.0)]


def test_all_pairs_keeps_a_pair_at_the_margin_and_none_below_it() -> None:
    found = all_pairs([1.0, 0.5, 0.25, -0.25], ["a", "b", "c", "d"], 0.5, limit=9, seed=0)
    assert [(p.chosen, p.rejected, p.margin) for p in found] == [
        (0, 1, 0.5),
        (0, 2, 0.75),
        (0, 3, 1.25),
        (1, 3, 0.75),
        (2, 3, 0.5),
    ]


def test_all_pairs_never_pairs_equal_scores() -> None:
    assert all_pairs([1.0, 1.0], ["a", "b"], 0.0, limit=9, seed=0) == []
