"""Why prompts were lost, as a person reads it."""

from services.causes import causes


def _failure(number: int, error: str) -> tuple[str, str]:
    prompt = f"demo.online/e1/p{number}"
    return prompt, error.format(prompt)


def test_causes_are_counted_whichever_prompt_and_number_they_name() -> None:
    failures = [
        _failure(1, "DataError: {} has 300 tokens, the engine holds 128"),
        _failure(2, "WorkerError: reward function my:score gave NoneType for {}, not a number"),
        _failure(3, "DataError: {} has 512 tokens, the engine holds 128"),
        _failure(4, "DataError: {} has 129 tokens, the engine holds 128"),
    ]
    assert causes(failures) == (
        "3 x DataError: a prompt has 300 tokens, the engine holds 128,"
        " 1 x WorkerError: reward function my:score gave NoneType for a prompt, not a number"
    )
    assert causes([]) == ""
    assert causes([("", "no name"), ("", "no name")]) == "2 x no name"


def test_an_error_that_quotes_what_it_read_is_one_cause() -> None:
    failures = [_failure(n, f"ValueError: cannot read {chr(97 + n)!r}") for n in range(2)]
    assert causes(failures) == "2 x ValueError: cannot read 'a'"
    cut = [
        _failure(n, f"ValueError: cannot read '{'xyz'[n]} of ... {n} of a row") for n in range(2)
    ]
    assert causes(cut) == "2 x ValueError: cannot read 'x of ... 0 of a row"
    apostrophes = [_failure(1, "can't add"), _failure(2, "can't sort")]
    assert causes(apostrophes) == "1 x can't add, 1 x can't sort"
    addresses = [("", f"TypeError: <object at 0x7fa{n}be> on 3f2a9c{n}0-11") for n in (0, 1)]
    assert causes(addresses) == "2 x TypeError: <object at 0x7fa0be> on 3f2a9c00-11"


def test_missing_keys_stand_apart_while_they_are_few() -> None:
    failures = [_failure(1, "KeyError: 'skill'"), _failure(2, "KeyError: 'answer'")]
    assert causes(failures) == "1 x KeyError: 'skill', 1 x KeyError: 'answer'"
    many = [_failure(n, f"KeyError: 'word {chr(97 + n)}'") for n in range(9)]
    assert causes(many) == "9 x KeyError: 'word a'"


def test_many_causes_and_long_ones_are_cut() -> None:
    names = ("oh", "no", "my", "us", "we")
    failures = [_failure(n, names[n % 5] * 200) for n in range(12)]
    told = causes(failures)
    assert told.startswith("3 x ohoh")
    assert told.endswith(", 4 x 2 other errors")
    assert len(told) < 4 * 175
