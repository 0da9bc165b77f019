"""A full disk: here a limit on the size of files, which the system refuses in the same place."""

import errno
import json
import resource
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from orchestrator.online.archive import LedgerArchive
from services.errors import ResourceError
from services.full_disk import when_there_is_room
from services.learner.train.checkpoint import latest, load_checkpoint, save_checkpoint
from services.queues.items import DeadLetter
from services.queues.ledger import LedgerEvent
from services.queues.ledger_file import read_ledger_file
from services.telemetry.record.events import Note
from services.telemetry.record.recorder import Recorder

TENSORS = {"model": {"a": torch.arange(4096.0)}}


@contextmanager
def full(is_full: bool = True) -> Iterator[None]:
    """No file of this process may be larger than a kilobyte: for as short as can be, as that is
    true of pytest's own output too.
    """
    before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    if is_full:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, hard))
        signal.signal(signal.SIGXFSZ, handler)


def test_a_checkpoint_waits_for_room_and_is_whole_then(tmp_path: Path) -> None:
    said: list[str] = []
    tries: list[int] = []

    def write() -> Path:
        tries.append(1)
        with full(len(tries) < 3):
            return save_checkpoint(tmp_path, 1, TENSORS, {})

    path = when_there_is_room(write, "the learner's", said.append, again_s=0.01)
    assert len(tries) == 3
    assert len(said) == 1
    assert said[0].startswith("the learner's disk is full (")
    assert latest(tmp_path) == path
    assert torch.equal(load_checkpoint(path).tensors["model"]["a"], TENSORS["model"]["a"])
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_a_plain_file_waits_as_well(tmp_path: Path) -> None:
    said: list[str] = []

    def write() -> None:
        with full(not said):
            (tmp_path / "pairs").write_bytes(b"x" * 4096)

    when_there_is_room(write, "the learner's", said.append, again_s=0.01)
    assert (tmp_path / "pairs").stat().st_size == 4096


def test_patience_ends_with_what_to_do(tmp_path: Path) -> None:
    def write() -> Path:
        with full():
            return save_checkpoint(tmp_path, 1, TENSORS, {})

    with pytest.raises(
        ResourceError, match=r"no room on the learner's disk for 0\.05 s .*; free some, then"
    ):
        when_there_is_room(write, "the learner's", lambda text: None, 0.05, 0.01)
    assert latest(tmp_path) is None


def test_a_record_is_written_when_there_is_room_again(tmp_path: Path) -> None:
    with Recorder(tmp_path) as record:
        with full():
            for number in range(40):
                record(Note(text=f"{number} " + "x" * 60))
        assert 0 < record.path.stat().st_size <= 1024
        record(Note(text="there is room"))
    lines = [json.loads(line)["text"] for line in record.path.read_text().splitlines()]
    (warning,) = [
        at for at, text in enumerate(lines) if "the disk of metrics.jsonl is full" in text
    ]
    del lines[warning]
    assert 0 < warning < 20
    assert lines == [*(f"{number} " + "x" * 60 for number in range(40)), "there is room"]
    assert len(record.state.notes) == len(lines) + 1


class Ledgers:
    """One episode of one prompt."""

    def __init__(self) -> None:
        self.forgotten: list[int] = []

    async def ledger(self, episode: int) -> list[LedgerEvent]:
        kinds = ("dispatched", "sampled", "scored", "paired", "trained")
        return [LedgerEvent(f"{at}-0", kind, "a", episode, "1") for at, kind in enumerate(kinds)]

    async def dead_letters(self) -> list[DeadLetter]:
        return []

    async def forget(self, episode: int) -> bool:
        self.forgotten.append(episode)
        return True


async def test_redis_forgets_a_ledger_once_there_was_room_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, queues = list[str](), Ledgers()
    archive = LedgerArchive(tmp_path, queues, lambda episode: ["a"], said.append)
    write, tries = archive._write, list[list[int]]()

    def once_full(episode: int, events: Sequence[LedgerEvent]) -> None:
        tries.append(list(queues.forgotten))
        if len(tries) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(episode, events)

    monkeypatch.setattr(archive, "_write", once_full)
    await archive.put_away(1)
    assert said == [
        "the run's disk is full ([Errno 28] No space left on device); it waits for room"
    ]
    assert (tries, queues.forgotten) == ([[], []], [1])
    assert len(list(read_ledger_file(tmp_path / "ledger/episode-00001.jsonl.gz"))) == 5


def test_another_error_is_raised_at_once() -> None:
    def write() -> None:
        raise PermissionError("not yours")

    with pytest.raises(PermissionError):
        when_there_is_room(write, "the learner's", pytest.fail)
