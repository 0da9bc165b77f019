import random

import numpy as np
import pytest

from services.data.filters import (
    clean,
    line_repetition,
    ngram_repetition,
    quality,
    symbol_ratio,
)
from services.data.minhash import NearDuplicates, signature, similarity
from services.data.settings import FilterSettings

SETTINGS = FilterSettings()


def _prose(seed: int, words: int = 200) -> str:
    rng = random.Random(seed)
    return " ".join(f"w{rng.randrange(5000)}" for _ in range(words))


def _changed(text: str, every: int) -> str:
    words = text.split()
    for at in range(0, len(words), every):
        words[at] = f"new{at}"
    return " ".join(words)


def _jaccard(one: str, other: str) -> float:
    sets = []
    for text in (one, other):
        words = text.split()
        sets.append({tuple(words[at : at + 5]) for at in range(len(words) - 4)})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def test_measures() -> None:
    assert symbol_ratio("ab_! 1é") == pytest.approx(2 / 7)
    assert line_repetition("a\n\na\n b\na") == pytest.approx(0.5)
    assert ngram_repetition("a b c d e a b c d e") == pytest.approx(1 / 6)
    assert [measure("") for measure in (symbol_ratio, line_repetition, ngram_repetition)] == [0] * 3


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("short", "too_short"),
        ("x" * 200_001, "too_long"),
        ("{}();" * 40, "symbols"),
        ("\n".join(["the same line again"] * 20), "repeated_lines"),
        (" ".join(["one two three four five six"] * 20), "repeated_ngrams"),
        (_prose(0), ""),
    ],
)
def test_each_reason(text: str, reason: str) -> None:
    assert quality(text, SETTINGS) == reason


def test_limits_are_inclusive() -> None:
    text = _prose(1)
    exact = SETTINGS.model_copy(update={"min_chars": len(text), "max_chars": len(text)})
    assert quality(text, exact) == ""


def test_clean_keeps_order_and_first_copies_and_counts() -> None:
    first, second = _prose(1), _prose(2)
    texts = [first, "tiny", first + " \n", second, _changed(first, 199), second]
    kept, dropped = clean(texts, SETTINGS)
    assert kept == [first, second]
    assert dropped == {"too_short": 1, "duplicate": 2, "near_duplicate": 1}


def test_similarity_of_one_switches_near_duplicates_off() -> None:
    first = _prose(1)
    exact = SETTINGS.model_copy(update={"near_duplicate_similarity": 1.0})
    assert clean([first, _changed(first, 199), first], exact) == (
        [first, _changed(first, 199)],
        {"duplicate": 1},
    )


@pytest.mark.parametrize("every", [20, 40, 80, 150])
def test_signature_estimates_jaccard(every: int) -> None:
    one = _prose(3, words=2000)
    other = _changed(one, every)
    assert similarity(signature(one), signature(other)) == pytest.approx(
        _jaccard(one, other), abs=4 * 0.5 / np.sqrt(128)
    )


def test_different_texts_are_no_near_duplicates() -> None:
    near = NearDuplicates(0.8)
    assert [near.seen(_prose(seed)) for seed in range(50)] == [False] * 50
    assert near.seen(_changed(_prose(7), 199))
