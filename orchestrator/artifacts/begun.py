"""What is begun and not finished: the record in a stage's scratch folder says whose work it is."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from orchestrator.artifacts.store import Artifact, found_parents, placed

RECORD = "stage.json"


class Begun(Artifact):
    """The content of stage.json: what the artifact will say, as far as it is known."""

    fingerprint: str = ""
    fresh: bool = False
    """Begun by --fresh: finished work of the same fingerprint in another run is no match for it."""
    instead_of: str = ""
    """The finished artifact of the same fingerprint that it is made beside, if there is one."""


def read_begun(scratch: str | Path) -> Begun | None:
    """The record of a scratch folder; None where there is nothing whole."""
    try:
        text = (Path(scratch) / RECORD).read_text(encoding="utf-8")
        return found_parents(Begun.model_validate_json(text), Path(scratch))
    except (OSError, UnicodeDecodeError, ValidationError):
        return None


def write_begun(scratch: Path, begun: Begun, parents: Mapping[str, str]) -> None:
    """Make the scratch folder and record whose it is; what --fresh has recorded there stays."""
    scratch.mkdir(parents=True, exist_ok=True)
    before = read_begun(scratch)
    if before is not None and before.fresh:
        begun = begun.model_copy(update={"fresh": True, "instead_of": before.instead_of})
    text = placed(begun, parents, scratch).model_dump_json(indent=1)
    (scratch / RECORD).write_text(text, encoding="utf-8")
