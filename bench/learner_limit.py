"""How close our learner's step comes to what the machine multiplies at the very shapes it uses.

    .venv/bin/python bench/learner_limit.py [--shape 0.5B] [--dtype float32 bfloat16] [--repeats 3]
        [--batch 8] [--prompt 40] [--answers 64 64] [--gpu]

The rate is torch.matmul's over the model's products in that dtype, measured in the same process
after the steps (services/learner/train/limit.py). "useful" counts each product once (a GPU's MFU),
"done" adds what the backward pass computes again. A step is everything: forward, backward, clip,
OMO's update. The last line is one JSON object.
"""

import argparse
from collections.abc import Sequence
from typing import Any

from bench import measure
from bench.learner_arms import SHAPES, Steps, limit_fraction, run_ours, seconds


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, nargs="+", default=["0.5B"])
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), nargs="+")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--prompt", type=int, default=40)
    parser.add_argument("--answers", type=int, nargs=2, default=(64, 64))
    parser.add_argument("--optimizer", choices=("ondare", "adamw"), default="ondare")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--moments", choices=("float32", "int8"), default="float32", help="ours")
    options = parser.parse_args()
    rows, found = [], {}
    more = ["--num-gpus", "1"] if options.gpu else []
    for shape in options.shape:
        for dtype in options.dtype or ("float32", "bfloat16"):
            steps = Steps(
                shape, dtype, options.prompt, tuple(options.answers), options.batch, options.steps,
                options.optimizer, options.moments,
            )  # fmt: skip
            runs = [run_ours(steps, *more) for _ in range(options.repeats)]
            figures = measured(runs)
            found[f"{shape} {dtype}"] = figures
            rows += [[f"{shape} {dtype}: {name}", value] for name, value in figures.items()]
    told = ("batch", "prompt", "answers", "optimizer", "moments")
    settings = {name: getattr(options, name) for name in told}
    measure.finish(measure.table(["", ""], rows), {**settings, "cases": found})


def measured(runs: Sequence[measure.Outcome]) -> dict[str, Any]:
    """Figures of one case."""
    results = [run.result for run in runs]
    spreads = {
        "step_seconds": [seconds(run) for run in runs],
        "tokens_per_second": [run.result["tokens"][-1] / seconds(run) for run in runs],
        "matmul_gflops": [result["matmul_rate"] / 1e9 for result in results],
        "useful_fraction": [limit_fraction(run) for run in runs],
        "done_fraction": [limit_fraction(run, "done_flops") for run in runs],
        "peak_gib": [measure.gib(result["peak_rss_bytes"]) for result in results],
        "peak_gpu_gib": [measure.gib(result["peak_gpu_bytes"]) for result in results],
    }
    figures: dict[str, Any] = {name: measure.spread(values) for name, values in spreads.items()}
    return {"parameters": results[0]["parameters"], **figures}


if __name__ == "__main__":
    main()
