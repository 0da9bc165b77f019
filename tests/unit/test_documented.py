"""Every command that README and tutorial show is run by a test, or said not to be."""

import pytest

from tests.documented import NOT_TESTED, PAGES, TESTED, commands, text_of, unmarked


def test_every_command_is_tested_or_listed_with_a_reason() -> None:
    shown = [command for page in PAGES for command in commands(text_of(page))]
    assert len(shown) > 10
    unknown = [
        command
        for command in shown
        if command not in TESTED and not command.startswith(tuple(NOT_TESTED))
    ]
    assert unknown == [], "add it to TESTED or NOT_TESTED in tests/documented.py"
    assert [command for command in TESTED if command not in shown] == [], "no page shows it"
    gone = [start for start in NOT_TESTED if not any(each.startswith(start) for each in shown)]
    assert gone == [], "no page shows it"


@pytest.mark.parametrize("page", PAGES)
def test_blocks_that_hold_commands_are_marked(page: str) -> None:
    assert unmarked(text_of(page)) == [], "mark the block sh, or console with $ before commands"


def test_commands_are_found_where_they_stand() -> None:
    page = (
        "Run `make all` or `a.b.c=value`; `make` alone is no command.\n"
        "```sh\nmake demo   # in miniature\n.venv/bin/python x.py \\\n    a=1\n\n```\n"
        "```console\n$ pip install x\nits output\n```\n"
        "```\nmake a mess\nwords\n```\n"
    )
    assert commands(page) == [
        "make demo",
        ".venv/bin/python x.py a=1",
        "pip install x",
        "make all",
    ]
    assert unmarked(page) == ["make a mess"]
