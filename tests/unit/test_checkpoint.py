import os
from pathlib import Path

import pytest
import torch

from services.errors import ArtifactError
from services.learner.train.checkpoint import latest, load_checkpoint, save_checkpoint
from services.learner.train.durable import replaced_folder


def save(folder: Path, number: int) -> Path:
    tensors = {"model": {"w": torch.full((3,), float(number))}}
    return save_checkpoint(folder, number, tensors, {"episode": number, "pairs": ["a"]})


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    assert latest(tmp_path / "none") is None
    save(tmp_path, 1)
    found = load_checkpoint(latest(tmp_path) or tmp_path)
    assert found.number == 1
    assert found.state == {"episode": 1, "pairs": ["a"]}
    assert found.tensors["model"]["w"].tolist() == [1.0, 1.0, 1.0]


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    for number in (1, 2, 10):
        save(tmp_path, number)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000002", "step-000000010"]


def test_an_interrupted_write_leaves_the_old_one(tmp_path: Path) -> None:
    save(tmp_path, 1)
    unserialisable = {"bad": object()}
    with pytest.raises(TypeError):
        save_checkpoint(tmp_path, 2, {"model": {"w": torch.zeros(1)}}, unserialisable)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000001"]


def test_what_a_killed_writer_left_is_no_checkpoint_and_goes_away(tmp_path: Path) -> None:
    save(tmp_path, 1)
    left = tmp_path / ".step-000000002.abc.tmp"
    left.mkdir()
    assert latest(tmp_path) == tmp_path / "step-000000001"
    save(tmp_path, 2)
    assert not left.exists()


def test_a_folder_without_its_manifest_is_no_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (save(tmp_path, 2) / "checkpoint.json").unlink()
    (tmp_path / "step-7").mkdir()
    (tmp_path / "step-7" / "checkpoint.json").write_text("{}")
    assert latest(tmp_path) == tmp_path / "step-000000001"
    with pytest.raises(ArtifactError, match="no readable checkpoint"):
        load_checkpoint(tmp_path / "step-000000002")


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    path = save(tmp_path, 1) / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match=r"model\.safetensors.*checksum"):
        load_checkpoint(tmp_path / "step-000000001")


def test_a_folder_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with replaced_folder(target) as fresh:
        (fresh / "old").write_text("1")
    with pytest.raises(KeyError), replaced_folder(target) as fresh:  # noqa: PT012
        (fresh / "new").write_text("2")
        raise KeyError
    assert [path.name for path in target.iterdir()] == ["old"]
    with replaced_folder(target) as fresh:
        (fresh / "new").write_text("2")
    assert [path.name for path in target.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_all_is_on_disk_before_the_name_and_the_name_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, flushed = tmp_path / "out", list[tuple[str, bool]]()
    real = os.fsync

    def fsync(handle: int) -> None:
        flushed.append((os.readlink(f"/proc/self/fd/{handle}"), target.exists()))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with replaced_folder(target) as fresh:
        (fresh / "a").write_text("1")
        (fresh / "inner").mkdir()
        (fresh / "inner" / "b").write_text("2")
        assert flushed == []
    # Files, then the folders that name them, then the rename, then the folder that holds it.
    assert flushed == [
        (str(fresh / "a"), False),
        (str(fresh / "inner"), False),
        (str(fresh / "inner" / "b"), False),
        (str(fresh), False),
        (str(tmp_path), True),
    ]
