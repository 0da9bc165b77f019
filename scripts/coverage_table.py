"""Branch coverage by room, from what `pytest --cov` left: one line each, the whole last.

.venv/bin/coverage report --skip-covered --show-missing    names the lines
"""

import json
import sys
from collections import Counter
from pathlib import Path

from coverage import Coverage

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".coverage"


def main() -> None:
    """Print the table. A line counts, and so does each way out of a branching line."""
    measured = Coverage(data_file=str(FOLDER / "data"), messages=False)
    measured.load()
    measured.json_report(outfile=str(FOLDER / "report.json"))
    rooms: dict[str, Counter[str]] = {}
    for file, found in json.loads((FOLDER / "report.json").read_text())["files"].items():
        room = "/".join(Path(file).parts[:-1][:2])
        rooms.setdefault(room, Counter()).update(
            {name: int(value) for name, value in found["summary"].items()}
        )
    rooms = dict(sorted(rooms.items())) | {"all": sum(rooms.values(), Counter())}
    sys.stdout.write("".join(f"{_row(room, count)}\n" for room, count in rooms.items()))


def _row(name: str, count: Counter[str]) -> str:
    lines, branches = count["covered_lines"], count["covered_branches"]
    share = (lines + branches) / max(1, count["num_statements"] + count["num_branches"])
    return (
        f"{name:24} {lines:5} of {count['num_statements']:5} lines  "
        f"{branches:5} of {count['num_branches']:5} branches  {100 * share:5.1f}%"
    )


if __name__ == "__main__":
    main()
