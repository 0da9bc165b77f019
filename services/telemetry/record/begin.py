"""Where a run's record begins when some of its stages are computed anew: one run, one record."""

import json
import shutil
from pathlib import Path
from typing import Any

from services.telemetry.record.events import RunStarted

_REPLACED = ".replaced"


def begin_record(folder: Path, anew: set[str]) -> None:
    """Leave out of metrics.jsonl what was recorded of stages that now begin anew.

    The record as it was is kept under `.replaced/`. Notes of the whole run go with it. Nothing is
    done without such stages, or without a record of them.
    """
    path = folder / "metrics.jsonl"
    if not anew or not path.is_file():
        return
    kept: list[str] = []
    cut = False
    gap = False
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            row = _row(line)
            if row is None or not _stays(row, anew):
                cut, gap = True, True
                continue
            if gap and kept and row.get("kind") != RunStarted().kind:
                # What passed while the lines between were written is no work of what is left.
                start = {"time": row.get("time", 0.0), **RunStarted().model_dump()}
                kept.append(json.dumps(start) + "\n")
            gap = False
            kept.append(line)
    if not cut:
        return
    keep = folder / _REPLACED
    keep.mkdir(exist_ok=True)
    number = sum(1 for _ in keep.glob("metrics-*.jsonl")) + 1
    partial = folder / "metrics.jsonl.partial"
    partial.write_text("".join(kept), encoding="utf-8")
    # A copy: a crash before the last step must not leave the run without a record.
    shutil.copyfile(path, keep / f"metrics-{number}.jsonl")
    partial.replace(path)


def _stays(row: dict[str, Any], anew: set[str]) -> bool:
    if row.get("kind") == "evaluated" and row.get("policy") in anew:
        return False
    if row.get("kind") == "note" and not row.get("stage"):
        return False
    return row.get("stage") not in anew


def _row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
