"""The demo over several seeds, with OMO and with AdamW: what each stage brings, and its tax.

    .venv/bin/python bench/demo_study.py [--seeds 0 1 2] [--output runs]

Runs `orchestrator/run.py configs/demo.yaml` once a seed and optimizer, under the names
study-<seed> and study-<seed>-adamw; the stages before the first DPO are shared, as their artifacts
are reused. Both optimizers take the learning rates of the config: OnDARE with rescale has AdamW's
expected step. Prints a table and, on the last line, one JSON object: for each optimizer, stage and
measure the mean over seeds, the least and the greatest.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "configs" / "demo.yaml"
MEASURES = ("sampled", "greedy", "left_out_sampled", "left_out_greedy", "lm_loss")


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output", default="runs")
    options = parser.parse_args()
    found: dict[str, dict[str, dict[str, list[float]]]] = {"omo": {}, "adamw": {}}
    seconds, memory = [], []
    for seed in options.seeds:
        for optimizer, overrides in (("omo", []), ("adamw", adamw())):
            name = f"study-{seed}" + ("" if optimizer == "omo" else "-adamw")
            summary = run(name, seed, options.output, overrides)
            if optimizer == "omo":
                seconds.append(summary["run"]["seconds"])
                memory.append((summary["run"]["peak_memory_bytes"] or 0) / 2**30)
            for stage, values in measured(summary).items():
                for measure, value in values.items():
                    found[optimizer].setdefault(stage, {}).setdefault(measure, []).append(value)
    report(found)
    result = {
        "seeds": options.seeds,
        "seconds": spread(seconds),
        "peak_memory_gib": spread(memory),
        "stages": {
            optimizer: {
                stage: {measure: spread(values) for measure, values in measures.items()}
                for stage, measures in stages.items()
            }
            for optimizer, stages in found.items()
        },
    }
    sys.stdout.write(json.dumps(result) + "\n")


def adamw() -> list[str]:
    """The demo with AdamW in both DPO stages, at the config's learning rates."""
    stages = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["stages"]
    return [
        f"stages.{name}.train.optimizer={{kind: adamw, lr: {stage['train']['optimizer']['lr']}}}"
        for name, stage in stages.items()
        if stage["job"] in ("offline_dpo", "online_dpo")
    ]


def run(name: str, seed: int, output: str, overrides: list[str]) -> dict[str, Any]:
    """One run's summary; what it prints goes to stderr."""
    command = [sys.executable, str(ROOT / "orchestrator" / "run.py"), str(CONFIG)]
    command += [f"name={name}", f"seed={seed}", f"output={output}", *overrides]
    sys.stderr.write(f"== {' '.join(command[1:])}\n")
    subprocess.run(command, check=True, cwd=ROOT, stdout=sys.stderr)
    text = (ROOT / output / name / "summary.json").read_text(encoding="utf-8")
    summary: dict[str, Any] = json.loads(text)
    return summary


def measured(summary: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Of each evaluated stage; "left_out" are the skills that the preference data does not hold."""
    found = {}
    for name, stage in summary["stages"].items():
        evaluation = stage["evaluation"]
        if evaluation is None:
            continue
        left_out = [s for s in evaluation["skills"].values() if not s["in_preferences"]]
        found[name] = {measure: evaluation[measure] for measure in ("sampled", "greedy", "lm_loss")}
        for way in ("sampled", "greedy"):
            count = sum(skill[f"{way}_n"] for skill in left_out)
            right = sum(skill[way] * skill[f"{way}_n"] for skill in left_out)
            found[name][f"left_out_{way}"] = right / count if count else 0.0
    return found


def spread(values: list[float]) -> dict[str, float]:
    """Mean, least and greatest."""
    return {
        "mean": round(fmean(values), 4),
        "min": round(min(values), 4),
        "max": round(max(values), 4),
    }


def report(found: dict[str, dict[str, dict[str, list[float]]]]) -> None:
    """A Markdown table: mean (least to greatest)."""
    lines = ["| optimizer | stage | " + " | ".join(MEASURES) + " |", "|---" * 7 + "|"]
    for optimizer, stages in found.items():
        for stage, measures in stages.items():
            cells = []
            for measure in MEASURES:
                s = spread(measures[measure])
                cells.append(f"{s['mean']:.3f} ({s['min']:.3f} to {s['max']:.3f})")
            lines.append(f"| {optimizer} | {stage} | " + " | ".join(cells) + " |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
