"""What a run's folder keeps of its trackers, so that the next attempt goes on with the same runs.

`trackers/<tracker>.id` is the run that a tracker began; `trackers/stages` what they were told of.
A file has one writer, as each tracker works in a thread of its own.
"""

from collections.abc import Iterable
from pathlib import Path

_FOLDER = "trackers"
_STAGES = "stages"


def kept_run(folder: Path, tracker: str) -> str | None:
    """The id of the run that the tracker began for this folder."""
    return _read(folder / _FOLDER / f"{tracker}.id")


def keep_run(folder: Path, tracker: str, run: str) -> None:
    """Go on with this run next time."""
    _write(folder / _FOLDER / f"{tracker}.id", run)


def forget_runs(folder: Path) -> None:
    """What was told holds no more: trackers begin other runs."""
    for path in (folder / _FOLDER).glob("*.id"):
        path.unlink()


def told_stages(folder: Path) -> frozenset[str]:
    """Stages that trackers were told of."""
    return frozenset((_read(folder / _FOLDER / _STAGES) or "").splitlines())


def keep_stages(folder: Path, stages: Iterable[str]) -> None:
    """These are all that trackers were told of."""
    _write(folder / _FOLDER / _STAGES, "\n".join(sorted(stages)))


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
