"""Errors on one line: of a length, and with what to do at their end."""

import pytest

from services.errors import DataError, fitted, one_line, shortened


def test_an_error_is_one_line_with_its_type() -> None:
    assert one_line(ValueError("two\n  lines")) == "ValueError: two lines"
    assert one_line(KeyError()) == "KeyError"
    assert one_line(ValueError("x" * 500), limit=40) == "ValueError: xxxxxxxxxxxx ... " + "x" * 11


@pytest.mark.parametrize("limit", [4, 5, 6, 20, 199, 200])
def test_shortened_keeps_both_ends_and_the_limit(limit: int) -> None:
    text = "a" * 100 + "b" * 100
    short = shortened(text, limit)
    assert len(short) == limit
    assert short.startswith("a")
    assert limit < 8 or short.endswith("b")


def test_the_middle_of_the_cause_goes_and_the_advice_stays() -> None:
    advice = "lower engine.kv_cache_gib or engine.max_num_seqs"
    line = fitted(f"rollout-0: {'why ' * 200}; it said so; {advice}", 120)
    assert len(line) == 120
    assert line.startswith("rollout-0: why why")
    assert line.endswith("it said so; " + advice)


def test_what_fits_is_left_as_it_is_but_for_its_line_breaks() -> None:
    assert fitted("one\ntwo; three", 300) == "one two; three"


def test_an_advice_that_is_too_long_itself_is_shortened() -> None:
    line = fitted("a cause; " + "do this " * 100, 300)
    assert len(line) == 300
    assert line.startswith("a cause; do this")
    assert line.endswith("do this")


def test_the_tree_has_every_error_at_its_top() -> None:
    from services import errors

    named = [
        each
        for each in vars(errors).values()
        if isinstance(each, type) and each.__module__ == errors.__name__
    ]
    assert DataError in named
    assert [each.__name__ for each in named if each.__name__ not in (errors.__doc__ or "")] == []
