"""DPO on fixed pairs, our learner alone against TRL's DPOTrainer, in one run, alternating.

    make bench-setup
    .venv/bin/python bench/learner_vs_trl.py [--shape 4M 60M 0.5B] [--dtype float32 bfloat16]
        [--repeats 3] [--steps 5] [--optimizer ondare|adamw]

Prompts of 256 tokens, answers of 64 to 256 (uniform, a fixed seed), 8 pairs a step. Both know the
reference's log-probabilities before the first step. TRL trains with AdamW, rows of like length
together; bf16 is autocast over float32. Pairs a second are over the steps but the first; memory is
the peak of a process that does nothing else (RSS). The last line is one JSON object.
"""

import argparse
from typing import Any

from bench import measure
from bench.learner_arms import SHAPES, Steps, limit_fraction, run_ours, run_theirs, seconds


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, nargs="+", default=["4M", "60M", "0.5B"])
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), nargs="+")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--optimizer", choices=("ondare", "adamw"), default="ondare", help="ours")
    parser.add_argument(
        "--trl-keeps-memory", action="store_true", help="TRL's allocator set as our learner's is"
    )
    parser.add_argument("--moments", choices=("float32", "int8"), default="float32", help="ours")
    options = parser.parse_args()
    measure.require_trl()
    rows: list[list[Any]] = []
    found = {}
    for shape in options.shape:
        for dtype in options.dtype or ("float32", "bfloat16"):
            steps = Steps(
                shape, dtype, count=options.steps, optimizer=options.optimizer,
                trl_keeps_memory=options.trl_keeps_memory, moments=options.moments,
            )  # fmt: skip
            figures = compared(steps, options.repeats)
            found[f"{shape} {dtype}"] = figures
            ours, trl = figures["ours"], figures["trl"]
            row = [f"{shape} {dtype}"]
            for figure in ("pairs_per_second", "peak_gib"):
                row += [ours[figure], trl[figure], figures[f"times_{figure}"]]
            rows.append(row)
    head = ["", "ours, pairs/s", "trl, pairs/s", "ratio", "ours, GiB", "trl, GiB", "ratio"]
    told = {
        name: getattr(options, name)
        for name in ("repeats", "optimizer", "moments", "trl_keeps_memory")
    }
    result = {**told, "cases": found}
    measure.finish(measure.table(head, rows), result)


def compared(steps: Steps, repeats: int) -> dict[str, Any]:
    """Figures of both sides and their ratios."""
    arms = {"ours": lambda _: run_ours(steps), "trl": lambda _: run_theirs(steps)}
    runs = measure.alternate(arms, repeats)
    speed = {side: [steps.batch / seconds(run) for run in runs[side]] for side in runs}
    peaks = {side: [run.result["peak_rss_bytes"] for run in runs[side]] for side in runs}
    figures: dict[str, Any] = {
        side: {
            "pairs_per_second": measure.spread(speed[side]),
            "peak_gib": measure.spread([measure.gib(peak) for peak in peaks[side]]),
            "before_seconds": measure.spread([run.result["before_seconds"] for run in runs[side]]),
            "steps": [run.result["steps"] for run in runs[side]],
        }
        for side in runs
    }
    figures["ours"]["limit_fraction"] = measure.spread([limit_fraction(r) for r in runs["ours"]])
    return figures | {
        "times_pairs_per_second": measure.ratios(speed["ours"], speed["trl"]),
        "times_peak_gib": measure.ratios(peaks["ours"], peaks["trl"]),
    }


if __name__ == "__main__":
    main()
