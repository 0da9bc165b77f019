"""The tensors of a Hugging Face folder, read where they lie: memory-mapped and never copied."""

import json
import math
import mmap
import os
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from services.errors import ArtifactError, one_line
from services.hub import find_model

_INDEX = "model.safetensors.index.json"
_HEADER_BYTES = 8
"""A safetensors file: this many bytes of length, a JSON header so long, then the values."""
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class _Place:
    """Where a tensor's values are: they start at byte `offset` of the file."""

    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int


class StoredTensors(Mapping[str, Tensor]):
    """The parameters of a model folder by name, in the dtype of the file.

    Only the headers are read when it is made. Every tensor handed out maps its own part of the
    file: its pages are shared with whoever reads the same file, and are let go when the tensor
    is dropped, so nothing is held between two uses. Writing to one changes a private copy of the
    page, never the file. A tied output head is the embedding and is left out.

    `source` is a folder or a hub name. Raises ArtifactError, one line, when there is no
    safetensors file or it cannot be read.
    """

    def __init__(self, source: str | Path) -> None:
        self.folder = _folder_of(str(source))
        self._places: dict[str, _Place] = {}
        self._descriptors: dict[Path, int] = {}
        for file in _weight_files(self.folder):
            self._places |= _places(file)
            self._descriptors[file] = descriptor = os.open(file, os.O_RDONLY)
            weakref.finalize(self, os.close, descriptor)
        if _ties_its_head(self.folder):
            self._places.pop("lm_head.weight", None)

    def __getitem__(self, name: str) -> Tensor:
        place = self._places[name]
        return self.flat(name, 0, math.prod(place.shape)).view(place.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of one tensor, from the header."""
        return self._places[name].shape

    def dtype(self, name: str) -> torch.dtype:
        """Of one tensor, from the header."""
        return self._places[name].dtype

    def flat(self, name: str, start: int, stop: int) -> Tensor:
        """Values start to stop of a tensor laid out flat, [stop - start]; a mapping of its own."""
        place = self._places[name]
        if not start < stop:
            return torch.empty(0, dtype=place.dtype)
        first = place.offset + start * place.dtype.itemsize
        page = first - first % mmap.ALLOCATIONGRANULARITY
        length = place.offset + stop * place.dtype.itemsize - page
        try:
            descriptor = self._descriptors[place.file]
            mapped = mmap.mmap(descriptor, length, access=mmap.ACCESS_COPY, offset=page)
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{place.file}: cannot be mapped ({one_line(error)})") from error
        # The tensor holds the mapping, and the mapping ends with the tensor.
        return torch.frombuffer(mapped, dtype=place.dtype, count=stop - start, offset=first - page)


def _folder_of(source: str) -> Path:
    found = find_model(source)
    if Path(found).is_dir():
        return Path(found)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(found, allow_patterns=["*.safetensors", "*.json"]))
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{source}: the weights cannot be fetched ({one_line(error)})"
        ) from error


def _weight_files(folder: Path) -> list[Path]:
    index = folder / _INDEX
    if index.is_file():
        try:
            named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError) as error:
            raise ArtifactError(f"{index}: not readable ({one_line(error)})") from error
        return sorted(folder / name for name in named)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ArtifactError(f"{folder}: no *.safetensors file; save the model as safetensors")
    return files


def _places(file: Path) -> dict[str, _Place]:
    """Where each tensor of one file lies, checked against the file's length."""
    try:
        size = file.stat().st_size
        with file.open("rb") as opened:
            start = int.from_bytes(opened.read(_HEADER_BYTES), "little") + _HEADER_BYTES
            if start > size:
                raise ValueError("it ends inside its header")
            header: dict[str, Any] = json.loads(opened.read(start - _HEADER_BYTES))
        header.pop("__metadata__", None)
        places = {
            name: _Place(
                file, _DTYPES[told["dtype"]], tuple(told["shape"]), start + told["data_offsets"][0]
            )
            for name, told in header.items()
        }
        for name, place in places.items():
            if place.offset + math.prod(place.shape) * place.dtype.itemsize > size:
                raise ValueError(f"it ends inside {name}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{file}: not a readable safetensors file ({one_line(error)})"
        ) from error
    return places


def _ties_its_head(folder: Path) -> bool:
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{folder}: config.json is not readable ({one_line(error)})") from error
    return bool(config.get("tie_word_embeddings"))
