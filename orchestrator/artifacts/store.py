"""Artifacts and their lineage: what each job leaves behind, and where it came from.

An artifact is a folder with `artifact.json`, which is written last: a folder without it is not
an artifact. Its fingerprint covers the job's config, its seed, its input files and its parents'
fingerprints, so equal fingerprints mean equal work, and a finished artifact can be reused.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from orchestrator.config.settings import Stage
from services.errors import ArtifactError
from services.settings import Settings

FILE = "artifact.json"
VERSION = "0.1.0"

# Keys that say where and on what a job runs, not what it computes.
_PLACEMENT = {"name", "output", "ray", "queues", "admin"}


class Artifact(Settings):
    """The content of artifact.json."""

    kind: str
    """The job that made it."""
    fingerprint: str
    parents: dict[str, str] = {}
    """Folder of each parent, by its role: policy, reference, base, data... In the file, relative to
    the artifact's own folder, so that runs can be moved as a whole; a hub name is itself."""
    config: dict[str, Any] = {}
    seed: int = 0
    metrics: dict[str, float] = {}
    seconds: float = 0.0
    code_version: str = VERSION


def read_artifact(folder: str | Path) -> Artifact | None:
    """The artifact of a folder, or None where there is none. ArtifactError when it is damaged."""
    path = Path(folder) / FILE
    if not path.is_file():
        return None
    try:
        artifact = Artifact.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise ArtifactError(f"{path} is damaged ({reason}); delete its folder") from None
    there = {role: os.path.normpath(path.parent / name) for role, name in artifact.parents.items()}
    parents = {
        role: there[role] if Path(there[role]).exists() else name
        for role, name in artifact.parents.items()
    }
    return artifact.model_copy(update={"parents": parents})


def fingerprint(stage: Stage, parents: dict[str, str]) -> str:
    """16 hex digits over the stage's config, its seed, its parents and its local input files.

    A parent that is an artifact counts by its fingerprint, wherever it lies.
    """
    config = stage.model_dump(mode="json", exclude=_PLACEMENT)
    for role, folder in parents.items():
        artifact = read_artifact(folder)
        identity = artifact.fingerprint if artifact else _identity(Path(folder))
        config = _replace(config, folder, f"<{role}:{identity}>")
    text = json.dumps({"config": config, "code": VERSION}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _identity(path: Path) -> str:
    """Of an input that is no artifact: size and time of each file; a hub name is itself."""
    if not path.exists():
        return str(path)
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    stats = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.is_file()]
    return hashlib.sha256(json.dumps(stats).encode()).hexdigest()[:16]


def _replace(value: Any, folder: str, token: str) -> Any:
    """`value` with the folder, and every path in it, named by its content instead of its place."""
    if isinstance(value, dict):
        return {key: _replace(inner, folder, token) for key, inner in value.items()}
    if isinstance(value, list):
        return [_replace(inner, folder, token) for inner in value]
    if isinstance(value, str) and (value == folder or value.startswith(folder + os.sep)):
        return token + value[len(folder) :]
    return value


def find_reusable(output: Path, first: Path, wanted: str) -> Path | None:
    """A finished artifact with this fingerprint: in its own place, or in another run's folder."""
    candidates: Iterator[Path] = (path.parent for path in sorted(output.glob(f"*/*/{FILE}")))
    for folder in (first, *candidates):
        artifact = read_artifact(folder)
        if artifact is not None and artifact.fingerprint == wanted:
            return folder
    return None


def ancestor(folder: str, kind: str, role: Literal["policy", "reference"] = "policy") -> str | None:
    """The nearest artifact of this kind along a role, the folder itself included."""
    seen: set[str] = set()
    current: str | None = folder
    while current is not None and current not in seen:
        seen.add(current)
        artifact = read_artifact(current)
        if artifact is None:
            return None
        if artifact.kind == kind:
            return current
        current = artifact.parents.get(role)
    return None


def finish(partial: Path, final: Path, artifact: Artifact) -> None:
    """Write artifact.json into the partial folder and move it to its final name.

    What stood there before is kept under `.replaced/`.
    """
    parents = {
        role: os.path.relpath(name, final) if Path(name).exists() else name
        for role, name in artifact.parents.items()
    }
    artifact = artifact.model_copy(update={"parents": parents})
    path = partial / FILE
    with path.open("w", encoding="utf-8") as file:
        file.write(artifact.model_dump_json(indent=2))
        file.flush()
        os.fsync(file.fileno())
    if final.exists():
        keep = final.parent / ".replaced"
        keep.mkdir(exist_ok=True)
        number = sum(1 for _ in keep.glob(f"{final.name}-*")) + 1
        shutil.move(final, keep / f"{final.name}-{number}")
    partial.rename(final)


def shown(folder: Path) -> str:
    """As a user would write it: relative inside the current folder, whole outside of it."""
    place = folder.resolve()
    return str(place.relative_to(Path.cwd()) if place.is_relative_to(Path.cwd()) else place)
