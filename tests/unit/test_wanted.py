"""What was asked of `workers scale` outlives the orchestrator that was asked."""

from pathlib import Path

import pytest

from orchestrator.online.fleet import Fleet, Words
from orchestrator.online.healing import Budget
from orchestrator.online.scaling import Scalable, Scaling
from orchestrator.online.settings import RestartSettings
from orchestrator.online.slots import PairSlot
from orchestrator.online.wanted import WantedFile
from pairloop.admin.v1 import admin_pb2 as admin

KINDS = {admin.WORKER_KIND_ROLLOUT: "rollout workers", admin.WORKER_KIND_PAIRING: "pairing workers"}
ROLLOUT, PAIRING = KINDS


async def never(name: str) -> PairSlot:
    raise AssertionError


class Run:
    """The fleets of one start, with so many workers of each kind by its config."""

    def __init__(self, path: Path, **configured: int) -> None:
        self.said: list[str] = []
        budget = Budget(RestartSettings(), "online", lambda event: None)
        self.fleets = {
            kind: Fleet(configured[key], never, Words(kind, key, key, print, print), budget)
            for kind, key in zip(KINDS, ("rollout", "pairing"), strict=True)
        }
        kinds = {
            kind: Scalable(what, self.fleets[kind], lambda more: "") for kind, what in KINDS.items()
        }
        self.scaling = Scaling(kinds, self.said.append, WantedFile(path / "workers.json"))

    @property
    def wanted(self) -> list[int]:
        return [fleet.wanted for fleet in self.fleets.values()]

    def scale(self, kind: admin.WorkerKind, count: int) -> str:
        return self.scaling.scale(kind, count, admin.Change(request_id=f"{kind}={count}"))


def test_the_next_start_wants_as_many(tmp_path: Path) -> None:
    first = Run(tmp_path, rollout=1, pairing=2)
    assert first.scale(ROLLOUT, 3) == ""
    assert first.scale(PAIRING, 1) == ""
    second = Run(tmp_path, rollout=1, pairing=2)
    assert second.wanted == [3, 1]
    assert second.said == [
        "3 rollout workers wanted, as was asked for before",
        "1 pairing workers wanted, as was asked for before",
    ]
    second.scale(ROLLOUT, 1)
    third = Run(tmp_path, rollout=1, pairing=2)
    assert third.wanted == [1, 1]
    assert len(third.said) == 1


def test_a_count_that_is_changed_in_the_config_is_the_newer_word(tmp_path: Path) -> None:
    Run(tmp_path, rollout=1, pairing=2).scale(ROLLOUT, 3)
    assert Run(tmp_path, rollout=2, pairing=2).wanted == [2, 2]


def test_what_cannot_be_kept_is_told(tmp_path: Path) -> None:
    run = Run(tmp_path, rollout=1, pairing=2)
    (tmp_path / "workers.partial").mkdir()  # a folder where the file would be written
    note = run.scale(ROLLOUT, 3)
    assert note.startswith("the same command given again begins with the config's count (")
    assert run.wanted == [3, 2]


@pytest.mark.parametrize("text", ["", "[]", '{"WORKER_KIND_ROLLOUT": 3}'])
def test_a_file_that_is_not_understood_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "workers.json").write_text(text)
    assert Run(tmp_path, rollout=1, pairing=2).wanted == [1, 2]
