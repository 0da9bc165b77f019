"""One optimizer step at a real model's size: time, memory, and how near memory's speed it comes.

    .venv/bin/python bench/omo_step.py [--shape qwen2-0.5b] [--reserve 0.1] [--repeats 3]
        [--steps 3] [--before 9f8ebf3] [--folder FOLDER] [--arms before float32 int8 adamw]

No model runs: parameters and gradients are random, of a policy that bench/models.py makes, whose
bfloat16 files and those of its base give tau_r. Arms, alternating, each in a process of its own:
`before` is OnDARE of the git revision named, with tau_r held in bfloat16; `float32` and `int8` are
today's by its moments; `adamw` is torch's fused one, which merges nothing. Before its steps each
process measures the memory: bytes a second of a multiplication in place, as a step reads and
writes. The floor is what a step must move over that. The last line is one JSON object.
"""

import argparse
import io
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from bench import measure, models

CHILD = Path(__file__).with_name("omo_step_child.py")
MOVED_BYTES = {"before": 32, "float32": 32, "int8": 20.1, "adamw": 28}
"""A parameter that a step must read (weight 4, gradient 4, moments 8 or 2, tau_r's two files 4) or
write (weight 4, moments 8 or 2)."""


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description="One optimizer step, before and now.")
    parser.add_argument("--shape", choices=list(models.SHAPES), default="qwen2-0.5b")
    parser.add_argument("--reserve", type=float, default=0.1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--before", default="9f8ebf3")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--arms", choices=list(MOVED_BYTES), nargs="+", default=list(MOVED_BYTES))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        old = Path(scratch, "before")
        if "before" in options.arms:
            _check_out(options.before, old)
        folder = options.folder or Path(scratch, "models")
        made = models.make(folder, options.shape)

        def run(arm: str) -> measure.Outcome:
            words = [measure.OURS, CHILD, arm, made["policy"], made["base"]]
            more = ["--reserve", str(options.reserve), "--steps", str(options.steps)]
            tree = old if arm == "before" else measure.ROOT
            return measure.run_arm([*words, *more], {"PYTHONPATH": str(tree)})

        arms = {arm: lambda _, arm=arm: run(arm) for arm in options.arms}
        outcomes = measure.alternate(arms, options.repeats)
    found = {arm: _figures(arm, each) for arm, each in outcomes.items()}
    rows = [
        [
            arm,
            *(found[arm][name] for name in ("seconds", "floor_share", "held_bytes", "peak_bytes")),
        ]
        for arm in found
    ]
    head = ["arm", "seconds a step", "floor / time", "held bytes a value", "most bytes a value"]
    measure.finish(
        measure.table(head, rows),
        {"shape": options.shape, "reserve": options.reserve, "arms": found},
    )


def _figures(arm: str, outcomes: list[measure.Outcome]) -> dict[str, Any]:
    results = [outcome.result for outcome in outcomes]
    floors = [MOVED_BYTES[arm] * one["values"] / one["bytes_per_s"] for one in results]
    return {
        "seconds": measure.spread([one["seconds"] for one in results]),
        "floor_share": measure.ratios(floors, [one["seconds"] for one in results]),
        "memory_gb_per_s": measure.spread([one["bytes_per_s"] / 1e9 for one in results]),
        "held_bytes": measure.spread([one["held_bytes"] / one["values"] for one in results]),
        "peak_bytes": measure.spread([one["peak_bytes"] / one["values"] for one in results]),
    }


def _check_out(revision: str, to: Path) -> None:
    """The revision's services and generated messages."""
    words = ["git", "archive", revision, "services", "protos"]
    packed = subprocess.run(words, cwd=measure.ROOT, check=True, stdout=subprocess.PIPE).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(to, filter="data")


if __name__ == "__main__":
    main()
