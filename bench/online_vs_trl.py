"""Online DPO, ours against TRL's OnlineDPOTrainer, in one run, alternating.

    make bench-setup
    .venv/bin/python bench/online_vs_trl.py --case a|b|c [--dtype float32 bfloat16] [--repeats 3]

  a  4M parameters, 16 prompts x 2 samples x 128 tokens an episode, 16 pairs a step
  b  Qwen2-0.5B's shape and vocabulary, 16 prompts x 2 samples x 64 tokens
  c  the demo's task from its SFT model (--sft, else runs/demo/sft): wall time to a held-out reward,
     eight samples and best-worst pairs against TRL's two

Ours is `orchestrator/run.py`, everything real, with OMO; theirs samples with transformers'
generate and trains with AdamW, gradient_checkpointing=False, bf16 as autocast over float32. A
figure of a run is the median over its episodes but the first, its spread is over the runs. The
last line is one JSON object.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import measure, online_arms, time_to_reward

CASES = {"a": ("4m", 128, 8), "b": ("qwen2-0.5b", 64, 3)}
"""Shape, longest answer, episodes a run."""
TRL_AT_ONCE = {("b", "float32"): 8}
"""Pairs that TRL samples and trains at once where all 16 of a step do not fit 24 GB."""


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", choices=("a", "b", "c"), default="a")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), nargs="+")
    parser.add_argument("--moments", choices=("float32", "int8"), default="float32", help="ours")
    parser.add_argument("--tokens-at-once", type=int, default=0, help="through our learner")
    parser.add_argument("--engine-dtype", default="", help="ours; as --dtype unless told")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--episodes", type=int, help="a run, the first left out")
    parser.add_argument("--trl-at-once", type=int, help="pairs, of the 16 of a step")
    parser.add_argument(
        "--trl-keeps-memory", action="store_true", help="TRL's allocator set as our learner's is"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of case c")
    parser.add_argument("--prompts", type=int, default=192, help="an episode of ours, in case c")
    parser.add_argument("--trl-steps", type=int, default=480, help="of case c")
    parser.add_argument("--trl-batch", type=int, default=16, help="prompts a step of case c")
    parser.add_argument("--sft", type=Path, default=measure.ROOT / "runs" / "demo" / "sft")
    parser.add_argument("--data", type=Path, default=measure.ROOT / "runs" / "demo" / "data")
    options = parser.parse_args()
    measure.require_trl()
    if options.case == "c":
        plan = time_to_reward.Plan(
            options.episodes or 8, options.prompts, options.trl_steps, options.trl_batch
        )
        time_to_reward.measure_all(options.sft, options.data, options.seeds, plan)
        return
    shape, max_tokens, episodes = CASES[options.case]
    names = ("moments", "tokens_at_once", "engine_dtype", "trl_keeps_memory")
    told = {name: getattr(options, name) for name in names}
    work = replace(online_arms.task(shape, max_tokens, options.episodes or episodes), **told)
    lines, found = "", {}
    for dtype in options.dtype or ("float32", "bfloat16"):
        at_once = options.trl_at_once or TRL_AT_ONCE.get((options.case, dtype), work.batch)
        this = replace(work, dtype=dtype, trl=("--at-once", str(at_once)))
        arms = {
            "ours": lambda _, this=this: online_arms.run_ours(this),
            "trl": lambda _, this=this: online_arms.run_theirs(this),
        }
        runs = measure.alternate(arms, options.repeats)
        found[dtype] = compared(runs["ours"], runs["trl"]) | {"trl_pairs_at_once": at_once}
        lines += readable(f"case {options.case}, {dtype}", found[dtype])
    result = {"case": options.case, "repeats": options.repeats, **told, "dtypes": found}
    measure.finish(lines, result)


def compared(ours: Sequence[measure.Outcome], trl: Sequence[measure.Outcome]) -> dict[str, Any]:
    """Figures of both sides and their ratios."""
    sides = {"ours": ours, "trl": trl}
    speeds = {name: [pairs_per_second(run) for run in runs] for name, runs in sides.items()}
    peaks = {name: [run.peak_pss_bytes for run in runs] for name, runs in sides.items()}
    return {
        name: {
            "pairs_per_second": measure.spread(speeds[name]),
            "episode_seconds": [step["seconds"] for run in runs for step in run.result["steps"]],
            "parts": {
                part: measure.spread([steady(run).get(part, 0.0) for run in runs])
                for part in steady(runs[0])
            },
            "start_seconds": measure.spread([run.result["start_seconds"] for run in runs]),
            "peak_gib": measure.spread([measure.gib(peak) for peak in peaks[name]]),
            "processes_gib": {
                title: round(measure.gib(size), 3)
                for title, size in max(runs, key=lambda run: run.peak_pss_bytes).processes.items()
            },
        }
        for name, runs in sides.items()
    } | {
        "times_pairs_per_second": measure.ratios(speeds["ours"], speeds["trl"]),
        "times_peak_gib": measure.ratios(peaks["ours"], peaks["trl"]),
    }


def steady(run: measure.Outcome) -> dict[str, float]:
    """Median seconds of an episode and of its parts, the first episode left out."""
    return measure.medians(run.result["steps"][1:])


def pairs_per_second(run: measure.Outcome) -> float:
    """Over the steady episodes."""
    return float(run.result["pairs_per_step"] / steady(run)["seconds"])


def readable(title: str, found: dict[str, Any]) -> str:
    """A table of both sides, and of where the time goes in each."""
    rows: list[Sequence[object]] = [
        [name, found["ours"][name], found["trl"][name]]
        for name in ("pairs_per_second", "peak_gib", "start_seconds")
    ]
    lines = measure.table([title, "ours", "trl"], rows)
    for ratio in ("times_pairs_per_second", "times_peak_gib"):
        lines += measure.table([ratio, ""], [["ours / trl", found[ratio]]])
    for side in ("ours", "trl"):
        parts = sorted(found[side]["parts"].items(), key=lambda part: -part[1]["median"])
        lines += measure.table([f"{side}: seconds of an episode", ""], [list(p) for p in parts])
    return lines + "\n"


if __name__ == "__main__":
    main()
