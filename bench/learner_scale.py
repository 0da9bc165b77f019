"""Time and memory of our learner's step as length, batch and parameters grow, one at a time.

    .venv/bin/python bench/learner_scale.py [--factor length batch parameters]
        [--dtype float32 bfloat16] [--shape 60M] [--steps 3]

From one middle case (60M parameters, prompt 128, answers of 128, 8 pairs a step) each factor is
moved alone. Every case is a process of its own; a step's time is the mean but the first, memory is
that process's peak (RSS). The last line is one JSON object.
"""

import argparse
from dataclasses import replace

from bench import measure
from bench.learner_arms import SHAPES, Steps, limit_fraction, run_ours, seconds

LENGTHS = (64, 128, 256, 512)
"""Of the prompt and of each answer."""
BATCHES = (2, 8, 32, 128)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    factors = ("length", "batch", "parameters")
    parser.add_argument("--factor", choices=factors, nargs="+", default=factors)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), nargs="+")
    parser.add_argument("--shape", choices=SHAPES, default="60M", help="of the middle case")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--moments", choices=("float32", "int8"), default="float32", help="ours")
    options = parser.parse_args()
    rows, cases = [], []
    for dtype in options.dtype or ("float32", "bfloat16"):
        middle = Steps(
            options.shape, dtype, 128, (128, 128), 8, options.steps, moments=options.moments
        )
        moved = {
            "length": [replace(middle, prompt=size, answers=(size, size)) for size in LENGTHS],
            "batch": [replace(middle, batch=size) for size in BATCHES],
            "parameters": [replace(middle, shape=shape) for shape in SHAPES],
        }
        for factor in options.factor:
            for steps in moved[factor]:
                measure.say(f"{factor}: {steps}")
                run = run_ours(steps)
                case = {
                    "factor": factor,
                    "dtype": dtype,
                    "parameters": run.result["parameters"],
                    "prompt": steps.prompt,
                    "answer": steps.answers[1],
                    "batch": steps.batch,
                    "tokens": run.result["tokens"][-1],
                    "step_seconds": seconds(run),
                    "tokens_per_second": run.result["tokens"][-1] / seconds(run),
                    "limit_fraction": limit_fraction(run),
                    "peak_gib": measure.gib(run.result["peak_rss_bytes"]),
                }
                measure.say(f"{case['step_seconds']:.3g} s, {case['peak_gib']:.3g} GiB")
                cases.append(case)
                rows.append(list(case.values()))
    measure.finish(
        measure.table(list(cases[0]), rows), {"moments": options.moments, "cases": cases}
    )


if __name__ == "__main__":
    main()
