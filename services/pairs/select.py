"""The pair rule: which two answers of a scored group become chosen and rejected.

Everything here is pure: scores and answers in, indices out, the same every time.

    one unique answer           -> SINGLE_ANSWER   nothing to prefer
    best and worst score equal  -> TIE             no preference to learn
    best - worst < min_margin   -> MARGIN          too close to call
    otherwise                   -> Selection       best is chosen, worst is rejected

The score that selects is the score that orders: a pair never disagrees with its own margin.
Chosen and rejected never hold the same answer, whatever their scores.

Among equal scores the lowest index wins, for the best and for the worst, so the order of the
samples decides and nothing else. From 16 answers on, the extreme worst is an outlier that
makes a bad pair (arXiv 2502.16825): the best is then held against the worst of 5 random ones.
"""

import random
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import isfinite

from pairloop.data.v1.pair_pb2 import (
    DROP_REASON_MARGIN,
    DROP_REASON_SINGLE_ANSWER,
    DROP_REASON_TIE,
    DropReason,
)
from services.errors import DataError

LARGE_GROUP = 16
RIVALS = 5


@dataclass(frozen=True)
class Selection:
    """Two answers of one group, by index; `margin` is the difference of their scores, > 0."""

    chosen: int
    rejected: int
    margin: float
    rule: str
    unique_answers: int


def select(
    scores: Sequence[float], answers: Sequence[Hashable], min_margin: float, seed: int
) -> "Selection | DropReason":
    """The most and the least preferred answer of a group, or why there is no pair.

    `scores[i]` is the total of `answers[i]`, which is its text or its token ids: equal answers
    count as one. `seed` draws the rivals of a large group and is not used in a small one.
    Raises DataError for a score that is not a finite number.
    """
    _check(scores, answers)
    unique = len(set(answers))
    if unique <= 1:
        return DROP_REASON_SINGLE_ANSWER
    best = max(range(len(scores)), key=lambda i: (scores[i], -i))
    rivals = [i for i, answer in enumerate(answers) if answer != answers[best]]
    rule = "best-worst"
    if len(scores) >= LARGE_GROUP:
        rule = f"best-worst-of-{RIVALS}"
        rivals = random.Random(seed).sample(rivals, min(RIVALS, len(rivals)))
    worst = min(rivals, key=lambda i: (scores[i], i))
    margin = scores[best] - scores[worst]
    if margin == 0.0:
        return DROP_REASON_TIE
    if margin < min_margin:
        return DROP_REASON_MARGIN
    return Selection(best, worst, margin, rule, unique)


def all_pairs(
    scores: Sequence[float],
    answers: Sequence[Hashable],
    min_margin: float,
    limit: int,
    seed: int,
) -> list[Selection]:
    """Up to `limit` distinct (better, worse) pairs of a group, for a preference set.

    An answer that was sampled several times takes part once, as its first copy. When more
    pairs clear the margin than fit, `seed` draws which; they come in order of their indices.
    """
    _check(scores, answers)
    first = sorted({answer: i for i, answer in reversed(list(enumerate(answers)))}.values())
    found = []
    for a, b in combinations(first, 2):
        better, worse = (a, b) if scores[a] > scores[b] else (b, a)
        margin = scores[better] - scores[worse]
        if margin > 0.0 and margin >= min_margin:
            found.append(Selection(better, worse, margin, "all-pairs", len(first)))
    kept = random.Random(seed).sample(range(len(found)), min(limit, len(found)))
    return [found[i] for i in sorted(kept)]


def _check(scores: Sequence[float], answers: Sequence[Hashable]) -> None:
    if len(scores) != len(answers):
        raise DataError(f"{len(scores)} scores for {len(answers)} answers: one each is needed")
    broken = [i for i, score in enumerate(scores) if not isfinite(score)]
    if broken:
        raise DataError(f"sample {broken[0]} has the score {scores[broken[0]]}, not a number")
