"""Weights read where they lie: the file's own values, and nothing held once they are dropped."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from services.errors import ArtifactError
from services.learner.model.stored import StoredTensors


def folder(path: Path, *, tied: bool = False, **tensors: torch.Tensor) -> Path:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps({"tie_word_embeddings": tied}))
    save_file(
        {name.replace("__", "."): value for name, value in tensors.items()},
        path / "model.safetensors",
    )
    return path


def mapped_bytes(file: Path) -> int:
    """Resident bytes of this process that are pages of the file."""
    resident, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            ours = line.endswith(str(file))
        elif ours and line.startswith("Rss:"):
            resident += 1024 * int(line.split()[1])
    return resident


def test_values_shapes_and_dtypes_are_the_files(tmp_path: Path) -> None:
    given = {
        "a": torch.randn(3, 5),
        "b": torch.randn(7).bfloat16(),
        "c": torch.arange(4),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
    }
    stored = StoredTensors(folder(tmp_path / "m", **given))
    assert stored.keys() == given.keys()
    for name, value in given.items():
        assert stored[name].dtype == stored.dtype(name) == value.dtype
        assert stored.shape(name) == tuple(value.shape)
        assert torch.equal(stored[name], value)
    assert torch.equal(stored.flat("a", 4, 11), given["a"].flatten()[4:11])


def test_a_tied_head_is_left_out_and_an_untied_one_is_not(tmp_path: Path) -> None:
    head = {"lm_head__weight": torch.zeros(2, 2), "norm": torch.ones(2)}
    assert list(StoredTensors(folder(tmp_path / "tied", tied=True, **head))) == ["norm"]
    assert set(StoredTensors(folder(tmp_path / "not", **head))) == {"norm", "lm_head.weight"}


def test_shards_are_found_by_their_index(tmp_path: Path) -> None:
    path = folder(tmp_path / "m", left=torch.ones(2))
    (path / "model.safetensors").rename(path / "one.safetensors")
    save_file({"right": torch.zeros(3)}, path / "two.safetensors")
    save_file({"stray": torch.zeros(3)}, path / "stray.safetensors")
    index = path / "model.safetensors.index.json"
    index.write_text(
        json.dumps({"weight_map": {"left": "one.safetensors", "right": "two.safetensors"}})
    )
    stored = StoredTensors(path)
    assert {name: value.tolist() for name, value in stored.items()} == {
        "left": [1.0, 1.0],
        "right": [0.0, 0.0, 0.0],
    }
    (path / "two.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"two\.safetensors: not a readable"):
        StoredTensors(path)


def test_a_dropped_tensor_leaves_no_page_behind(tmp_path: Path) -> None:
    path = folder(tmp_path / "m", big=torch.ones(1 << 20))
    stored = StoredTensors(path)
    held = stored["big"]
    assert float(held.sum()) == 1 << 20
    assert mapped_bytes(path / "model.safetensors") >= 4 << 20
    del held
    assert mapped_bytes(path / "model.safetensors") == 0


def test_writing_to_a_tensor_leaves_the_file_alone(tmp_path: Path) -> None:
    stored = StoredTensors(folder(tmp_path / "m", w=torch.ones(4)))
    stored["w"].mul_(3)
    assert stored["w"].tolist() == [1.0] * 4


def test_what_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    path = folder(tmp_path / "m", w=torch.ones(64))
    file = path / "model.safetensors"
    whole = file.read_bytes()
    for broken in (whole[:-1], whole[:20], b"", b"\xff" * 40):
        file.write_bytes(broken)
        with pytest.raises(ArtifactError, match="not a readable safetensors file") as caught:
            StoredTensors(path)
        assert "\n" not in str(caught.value)
    file.unlink()
    with pytest.raises(ArtifactError, match="save the model as safetensors"):
        StoredTensors(path)
