"""The table of transitions is closed, complete, and agrees with the messages and the docs."""

import re
from pathlib import Path

import pytest

from pairloop.admin.v1.admin_pb2 import Episode, EpisodeState
from services.states import OVER, REPLAYED, TRANSITIONS, State, message_state, state_of

ARCHITECTURE = Path(__file__).parents[2] / "docs" / "architecture.md"
ENDS = {State.COMPLETED, State.CANCELLED}


def test_the_table_has_every_state_of_the_api() -> None:
    names = {name.removeprefix("EPISODE_STATE_") for name in EpisodeState.keys()}  # noqa: SIM118
    assert set(TRANSITIONS) == set(State) == names - {"UNSPECIFIED"}


def test_only_ends_are_without_a_way_on() -> None:
    assert {state for state, allowed in TRANSITIONS.items() if not allowed} == ENDS


def test_every_state_is_reached_from_pending_and_reaches_the_end() -> None:
    reached, todo = {State.PENDING}, [State.PENDING]
    while todo:
        new = set(TRANSITIONS[todo.pop()]) - reached
        reached |= new
        todo += new
    assert reached == set(State)
    assert all(
        State.FAILED in allowed
        for state, allowed in TRANSITIONS.items()
        if state not in (*ENDS, State.FAILED)
    )


def test_a_failed_episode_is_over_until_its_command_is_given_again() -> None:
    assert TRANSITIONS[State.FAILED] == (State.SAMPLING,)
    assert set(OVER) == ENDS | {State.FAILED}
    assert set(REPLAYED) == {State.SAMPLING, State.PAUSING, State.PAUSED}


def test_training_can_no_longer_be_paused_or_cancelled() -> None:
    for state in (State.TRAINING, State.PUBLISHING):
        assert not {State.PAUSING, State.PAUSED, State.CANCELLED} & set(TRANSITIONS[state])


def test_the_docs_have_the_same_table() -> None:
    section = ARCHITECTURE.read_text(encoding="utf-8").split("## States of an episode")[1]
    table = section.split("|---|---|\n")[1].split("\n\n")[0]
    documented = {}
    for row in table.splitlines():
        before, after = row.strip("|").split("|")
        for state in re.findall("[A-Z]{3,}", before):
            documented[State(state)] = tuple(map(State, re.findall("[A-Z]{3,}", after)))
    assert documented == TRANSITIONS


def test_a_state_and_its_message_are_each_others() -> None:
    for state in State:
        value = message_state(state)
        assert EpisodeState.Name(value) == f"EPISODE_STATE_{state}"
        assert state_of(Episode(state=value)) is state
    for name in ("UNSPECIFIED", "EPISODE_STATE_PAUSED", "paused"):
        with pytest.raises(ValueError, match=name):
            message_state(name)
    with pytest.raises(ValueError, match="UNSPECIFIED"):
        state_of(Episode())
