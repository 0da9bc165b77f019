"""How far sampling may run ahead, as somebody sets it while the run goes on."""

from pathlib import Path

import pytest

from orchestrator.online.staleness import Staleness
from orchestrator.online.wanted import WantedFile
from pairloop.admin.v1.admin_pb2 import Change
from services.errors import StateError

CHANGE = Change(actor="ada", reason="the reward is slow", request_id="1")


def staleness(folder: Path, said: list[str], configured: int = 0) -> Staleness:
    return Staleness(configured, 10, 30, WantedFile(folder / "wanted.json"), said.append)


def test_it_is_the_configs_until_somebody_sets_it_and_then_that(tmp_path: Path) -> None:
    said: list[str] = []
    one = staleness(tmp_path, said)
    assert one.versions == 0
    assert one.set(2, CHANGE) == ""
    assert one.versions == 2
    assert staleness(tmp_path, said).versions == 2
    assert said == [
        "max_staleness is 2 from now on, by ada: the reward is slow",
        "max_staleness is 2, as was asked for before",
    ]
    # A config that is changed since is the newer word.
    assert staleness(tmp_path, said, configured=1).versions == 1


def test_more_than_the_credits_carry_is_refused(tmp_path: Path) -> None:
    one = staleness(tmp_path, [])
    with pytest.raises(StateError, match=r"queues.credits 30 is less than .* = 40: no episode"):
        one.set(3, CHANGE)
    assert one.versions == 0


def test_what_cannot_be_kept_is_said(tmp_path: Path) -> None:
    one = staleness(tmp_path, [])
    (tmp_path / "wanted.partial").mkdir()  # in the way of the file that would be written
    assert "begins with the config's" in one.set(1, CHANGE)
    assert one.versions == 1
