"""A full disk: here a limit on the size of files, which the system refuses in the same place."""

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from services.errors import ResourceError
from services.learner.train.checkpoint import latest, load_checkpoint, save_checkpoint
from services.learner.train.full_disk import when_there_is_room

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

    path = when_there_is_room(write, said.append, again_s=0.01)
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

    when_there_is_room(write, said.append, again_s=0.01)
    assert (tmp_path / "pairs").stat().st_size == 4096


def test_patience_ends_with_what_to_do(tmp_path: Path) -> None:
    def write() -> Path:
        with full():
            return save_checkpoint(tmp_path, 1, TENSORS, {})

    with pytest.raises(ResourceError, match=r"no room on its disk for 0\.05 s .*; free some, then"):
        when_there_is_room(write, lambda text: None, 0.05, 0.01)
    assert latest(tmp_path) is None


def test_another_error_is_raised_at_once() -> None:
    def write() -> None:
        raise PermissionError("not yours")

    with pytest.raises(PermissionError):
        when_there_is_room(write, pytest.fail)
