"""Artifacts: what each job leaves behind, and where it came from.

An artifact is a folder with `artifact.json`, which is written last: a folder without it is not
an artifact. Its fingerprint (identity.py) says what was computed, so an artifact with the wanted
one can be reused, wherever it lies. What is begun has `stage.json` in its scratch folder.
"""

import contextlib
import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from orchestrator.artifacts.identity import CODE
from services.errors import ArtifactError
from services.settings import Settings

FILE = "artifact.json"
RECORD = "stage.json"
"""In a scratch folder: what artifact.json will say, as far as it is known."""
WORK = ".work"
"""Folder of a run: the scratch folders of what is begun, <stage>-<trunk>."""
REPLACED = ".replaced"
"""Folder of a run: what newer work has pushed from its place."""
RESUME = "resume"
"""Folder in an artifact: what a larger extent goes on from."""
LEARNER = "learner"
"""Folder in a scratch folder: what an interrupted training goes on from."""
CHECKPOINTS = "checkpoints"
"""Folder in an artifact, and in a scratch folder before: models of the way, a folder each."""


class Artifact(Settings):
    """The content of artifact.json."""

    kind: str
    """The job that made it."""
    fingerprint: str
    trunk: str = ""
    """The fingerprint without the extent."""
    extent: dict[str, int] = {}
    """The counts that more work could raise, e.g. episodes.count."""
    identity: dict[str, Any] = {}
    """What the fingerprint covers."""
    parents: dict[str, str] = {}
    """Place of each parent, by its role: policy, reference, base, pairs... In the file, relative to
    the artifact's own folder, so that runs can be moved as a whole; a hub name is itself."""
    parent_fingerprints: dict[str, str] = {}
    """Of those parents that are artifacts: another one may come to lie at that place."""
    config: dict[str, Any] = {}
    seed: int = 0
    metrics: dict[str, float] = {}
    seconds: float = 0.0
    code_version: str = CODE


class Begun(Artifact):
    """The content of stage.json: what the artifact will say, as far as it is known."""

    fingerprint: str = ""
    fresh: bool = False
    """Begun by --fresh: finished work of the same fingerprint in another run is no match for it."""
    instead_of: str = ""
    """The finished artifact of the same fingerprint that it is made beside, if there is one."""


A = TypeVar("A", bound=Artifact)


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
    return found_parents(artifact, path.parent)


def found_parents(artifact: A, folder: Path) -> A:
    """The artifact as read from `folder`, its parents as paths from here: `placed`, undone."""
    if folder.is_symlink():
        folder = folder.resolve()  # ".." is where the folder lies, not where the link does
    there = {role: os.path.normpath(folder / name) for role, name in artifact.parents.items()}
    parents = {
        role: there[role] if name.startswith("..") or Path(there[role]).exists() else name
        for role, name in artifact.parents.items()
    }
    return artifact.model_copy(update={"parents": parents})


def read_begun(scratch: str | Path) -> Begun | None:
    """The record of a scratch folder; None where there is nothing whole."""
    try:
        text = (Path(scratch) / RECORD).read_text(encoding="utf-8")
        return found_parents(Begun.model_validate_json(text), Path(scratch))
    except (OSError, UnicodeDecodeError, ValidationError):
        return None


def made_by(path: str | Path) -> Artifact | None:
    """What is recorded of the job that made a model folder; None where nothing is.

    A model of the way has the record of the last one, which may be still to come.
    """
    folder = kept_by(path)
    return read_artifact(path) if folder is None else read_artifact(folder) or read_begun(folder)


def kept_by(path: str | Path) -> Path | None:
    """The artifact's or scratch folder that holds a model of the way; None for another path."""
    parent = Path(path).parent
    return parent.parent if parent.name == CHECKPOINTS else None


def mark_of(path: str | Path) -> str:
    """Which work made a model folder, "" where nothing is recorded.

    The fingerprint; of a model of the way the trunk, since the run it is of may become longer.
    """
    artifact = made_by(path)
    if artifact is None:
        return ""
    return artifact.fingerprint if kept_by(path) is None else artifact.trunk


def artifact_root(path: str) -> str:
    """A file inside an artifact stands for the artifact."""
    parent = Path(path).parent
    return str(parent) if (parent / FILE).is_file() else path


def finished_artifacts(
    output: Path, first: Path, without: Collection[Path] = ()
) -> dict[str, Path]:
    """Every finished artifact under an output folder by fingerprint; those of `first` win.

    Raises ArtifactError for a damaged one in `first`; another run's is no concern of this one.
    """
    found: dict[str, Path] = {}
    for path in sorted(first.glob(f"*/{FILE}")):
        if path.parent not in without and (artifact := read_artifact(path.parent)) is not None:
            found.setdefault(artifact.fingerprint, path.parent)
    for path in sorted(output.glob(f"*/*/{FILE}")):
        if path.parent.parent == first:
            continue
        with contextlib.suppress(ArtifactError):
            if (artifact := read_artifact(path.parent)) is not None:
                found.setdefault(artifact.fingerprint, path.parent)
    return found


def finish(partial: Path, final: Path, artifact: Artifact) -> None:
    """Write artifact.json into the partial folder and move it to its final name.

    What stood there before is kept under `.replaced/`.
    """
    path = partial / FILE
    with path.open("w", encoding="utf-8") as file:
        file.write(placed(artifact, artifact.parents, final).model_dump_json(indent=2))
        file.flush()
        os.fsync(file.fileno())
    if final.exists():
        set_aside(final, final.parent, final.name)
    partial.rename(final)


def placed(artifact: A, parents: Mapping[str, str], folder: Path) -> A:
    """The artifact as a file in `folder` says it: parents relative to that, and which they are."""
    marks = {role: mark for role, name in parents.items() if (mark := mark_of(name))}
    there = {
        role: os.path.relpath(name, folder) if Path(name).exists() else name
        for role, name in parents.items()
    }
    return artifact.model_copy(update={"parents": there, "parent_fingerprints": marks})


def write_begun(scratch: Path, begun: Begun, parents: Mapping[str, str]) -> None:
    """Make the scratch folder and record whose it is; what --fresh has recorded there stays."""
    scratch.mkdir(parents=True, exist_ok=True)
    before = read_begun(scratch)
    if before is not None and before.fresh:
        begun = begun.model_copy(update={"fresh": True, "instead_of": before.instead_of})
    text = placed(begun, parents, scratch).model_dump_json(indent=1)
    (scratch / RECORD).write_text(text, encoding="utf-8")


def set_aside(path: Path, run: Path, name: str) -> Path:
    """Move what stands in a run to its `.replaced/<name>-<number>`; nothing is deleted."""
    keep = run / REPLACED
    keep.mkdir(exist_ok=True)
    number = sum(1 for _ in keep.glob(f"{name}-*")) + 1
    return Path(shutil.move(path, keep / f"{name}-{number}"))


def shown(folder: Path) -> str:
    """As a user would write it: relative inside the current folder, whole outside of it."""
    place = folder.resolve()
    return str(place.relative_to(Path.cwd()) if place.is_relative_to(Path.cwd()) else place)


def linked(folder: Path, to: Path) -> None:
    """The same files under another folder too; a crash leaves the first as it was."""

    def link(source: str, target: str) -> None:
        try:
            os.link(source, target)
        except OSError:  # a file system without links
            shutil.copy2(source, target)

    # What an interrupted write has left beside the whole ones stays behind.
    shutil.copytree(folder, to, copy_function=link, ignore=shutil.ignore_patterns(".*.tmp"))
