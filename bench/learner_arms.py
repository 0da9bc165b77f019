"""DPO steps on fixed pairs: our learner alone and TRL's DPOTrainer, each in a child."""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from bench import measure, models
from bench.online_arms import FOLDER

SHAPES = {"4M": "4m", "60M": "60m", "0.5B": "qwen2-0.5b"}
AT_ONCE = {"4M": 8, "60M": 8, "0.5B": 2}
"""Pairs that TRL puts through the model at once: what fits beside it in 24 GB."""


@dataclass(frozen=True)
class Steps:
    """Steps of DPO on pairs of random digits, which are tokens."""

    shape: str
    dtype: str = "float32"
    prompt: int = 256
    answers: tuple[int, int] = (64, 256)
    """Shortest and longest, uniform."""
    batch: int = 8
    count: int = 4
    optimizer: str = "ondare"
    """Of ours; TRL has AdamW."""
    moments: str = "float32"
    """How the optimizer of ours holds them."""
    trl_keeps_memory: bool = False
    """Whether TRL's allocator is set as our learner sets its own."""


def run_ours(steps: Steps, *options: str) -> measure.Outcome:
    """Our learner through train_phase."""
    made, pairs = _inputs(steps)
    command = [
        measure.OURS, "bench/learner_child.py", "--policy", made["policy"], "--base", made["base"],
        "--pairs", pairs, "--dtype", steps.dtype, "--batch", str(steps.batch),
        "--steps", str(steps.count), "--optimizer", steps.optimizer,
        "--moments", steps.moments, *options,
    ]  # fmt: skip
    return measure.run_arm(command)


def run_theirs(steps: Steps, *options: str) -> measure.Outcome:
    """TRL's DPOTrainer."""
    made, pairs = _inputs(steps)
    at_once = str(min(steps.batch, AT_ONCE[steps.shape]))
    command = [
        measure.THEIRS, "bench/trl_dpo.py", "--policy", made["policy"], "--pairs", pairs,
        "--dtype", steps.dtype, "--batch", str(steps.batch), "--steps", str(steps.count),
        "--at-once", at_once, *options,
    ]  # fmt: skip
    return measure.run_arm(command, measure.KEEP_FREED_MEMORY if steps.trl_keeps_memory else None)


def seconds(run: measure.Outcome) -> float:
    """Of a step: the mean, the first one left out; steps have pairs of different lengths."""
    return fmean(step["seconds"] for step in run.result["steps"][1:])


def limit_fraction(run: measure.Outcome, flops: str = "useful_flops") -> float:
    """Operations a second over the steps but the first, over the machine's matrix rate."""
    result = run.result
    total = sum(result[flops][1:]) / sum(step["seconds"] for step in result["steps"][1:])
    return float(total / result["matmul_rate"])


def _inputs(steps: Steps) -> tuple[dict[str, Path], Path]:
    """Model folders and the file of pairs, the same for the same numbers."""
    folder = FOLDER / SHAPES[steps.shape]
    least, most = steps.answers
    pairs = folder / f"pairs-{steps.prompt}-{least}-{most}-{steps.batch * steps.count}.jsonl"
    made = models.make(folder, SHAPES[steps.shape])
    if not pairs.is_file():
        draw = random.Random(0)
        lines = []
        for _ in range(steps.batch * steps.count):
            sizes = [steps.prompt, draw.randint(least, most) - 1, draw.randint(least, most) - 1]
            texts = ["".join(draw.choices("0123456789", k=size)) for size in sizes]
            lines.append(
                json.dumps(dict(zip(("prompt", "chosen", "rejected"), texts, strict=True)))
            )
        pairs.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return made, pairs
