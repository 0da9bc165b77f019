"""Checkpoints of a training: complete or absent, checked by checksum, no pickle.

A checkpoint is a folder `step-<number>` with one safetensors file for each group of tensors, and
`checkpoint.json`: the state that is not tensors, and size and xxh3-64 of every file.
"""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from services.errors import ArtifactError
from services.learner.train.durable import replaced_folder

_MANIFEST = "checkpoint.json"
_KEPT = 2
"""The newest, and the one before in case the newest turns out to be broken."""
_NAME = re.compile(r"step-(\d{9})")


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds: tensors by file and name, and JSON-able state."""

    number: int
    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]


def save_checkpoint(
    folder: Path,
    number: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
) -> Path:
    """Write checkpoint `number` under `folder`, then remove all but the newest `_KEPT`."""
    target = place_of(folder, number)
    with replaced_folder(target) as fresh:
        for file, named in tensors.items():
            held = {name: value.detach().cpu().contiguous() for name, value in named.items()}
            save_file(held, fresh / f"{file}.safetensors")
        files = {path.name: _fingerprint(path) for path in sorted(fresh.iterdir())}
        manifest = {"number": number, "files": files, "state": dict(state)}
        (fresh / _MANIFEST).write_text(json.dumps(manifest, indent=1))
    for old in _found(folder)[:-_KEPT]:
        shutil.rmtree(old)
    return target


def place_of(folder: Path, number: int) -> Path:
    """Where checkpoint `number` under `folder` is."""
    return folder / f"step-{number:09d}"


def number_of(checkpoint: Path) -> int:
    """The opposite of `place_of`."""
    return int(checkpoint.name.removeprefix("step-"))


def latest(folder: Path) -> Path | None:
    """The newest complete checkpoint under `folder`, or None."""
    found = _found(folder)
    return found[-1] if found else None


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint. Raises ArtifactError naming the file that is missing or broken."""
    try:
        manifest = json.loads((path / _MANIFEST).read_text())
        for name, expected in manifest["files"].items():
            if _fingerprint(path / name) != expected:
                raise ArtifactError(
                    f"{path / name}: its checksum is not the one it was written with; "
                    "remove this checkpoint to go back to the one before"
                )
        tensors = {Path(name).stem: load_file(path / name) for name in manifest["files"]}
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ArtifactError(f"{path}: no readable checkpoint ({error})") from error
    return Checkpoint(int(manifest["number"]), tensors, manifest["state"])


def model_tensors(named: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Parameters by name, without their gradients."""
    return {name: p.detach() for name, p in named.items()}


def restore_model(named: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]) -> None:
    """Overwrite the parameters. Raises ArtifactError when names or shapes differ."""
    if named.keys() != tensors.keys():
        odd = sorted(named.keys() ^ tensors.keys())[0]
        raise ArtifactError(f"the checkpoint is of another model: {odd} is in one of them only")
    with torch.no_grad():
        for name, parameter in named.items():
            if parameter.shape != tensors[name].shape:
                raise ArtifactError(
                    f"the checkpoint is of another model: {name} is "
                    f"{tuple(tensors[name].shape)}, not {tuple(parameter.shape)}"
                )
            parameter.copy_(tensors[name])


def optimizer_tensors(
    named: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """The optimizer's state as "<parameter>|<key>" -> tensor."""
    return {
        f"{name}|{key}": value
        for name, parameter in named.items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(
    named: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, Tensor],
) -> None:
    """The opposite of `optimizer_tensors`; moments go to their parameter's device."""
    for parameter in named.values():
        optimizer.state.pop(parameter, None)
    for full_name, value in tensors.items():
        name, key = full_name.rsplit("|", 1)
        if name not in named:
            raise ArtifactError(f"the checkpoint's optimizer is of another model: {name}")
        # torch's fused AdamW counts steps on the device, the Online Merging Optimizer on the CPU.
        counts_here = key == "step" and not optimizer.defaults.get("fused")
        device = value.device if counts_here else named[name].device
        optimizer.state[named[name]][key] = value.clone().to(device)


def _found(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if _NAME.fullmatch(path.name) and (path / _MANIFEST).is_file()
    )


def _fingerprint(path: Path) -> dict[str, Any]:
    digest = xxhash.xxh3_64()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return {"bytes": path.stat().st_size, "xxh3_64": digest.hexdigest()}
