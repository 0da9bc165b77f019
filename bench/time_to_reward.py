"""Case c of online_vs_trl.py: wall time to a held-out reward, on the demo's task.

Both sides start from the demo's SFT model, see the demo's online prompts, and are paid by its
checker. Ours takes eight samples a prompt and trains on the best and the worst; TRL takes the two
it can. The models of the way are kept; afterwards one evaluator answers the held-out prompts with
each, so measuring is in nobody's time. A side's time to a level is read from its curve, smoothed
over three models. The levels are shares of the way from the start to the highest reward that both
sides reach with every seed.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench import measure, online_arms

SHARES = (0.25, 0.5, 0.75, 1.0)
LR = 4e-5
TRL_SAVES = 24


@dataclass(frozen=True)
class Plan:
    """How long each side trains, and in which pieces."""

    episodes: int = 8
    """Of ours."""
    prompts: int = 192
    """Of an episode of ours."""
    trl_steps: int = 480
    trl_batch: int = 16
    """Prompts of a step of TRL's."""


@dataclass(frozen=True)
class Curve:
    """Held-out reward over training time."""

    seconds: Sequence[float]
    rewards: Sequence[float]
    start_seconds: float
    """From the command to the first training: in no point of the curve."""
    peak_gib: float

    def smoothed(self) -> list[float]:
        """Means over three neighbours; the first and last points stay as they are."""
        inner = zip(self.rewards, self.rewards[1:], self.rewards[2:], strict=False)
        return [self.rewards[0], *(sum(three) / 3 for three in inner), self.rewards[-1]]

    def reached(self, level: float) -> float:
        """Seconds until the smoothed curve first stands at the level, between two models too.

        Raises ValueError when it never does.
        """
        rewards = self.smoothed()
        above = next((at for at, reward in enumerate(rewards) if reward >= level), None)
        if above is None:
            raise ValueError(f"the curve ends below {level}")
        if above == 0:
            return self.seconds[0]
        before, since = rewards[above - 1], self.seconds[above - 1]
        share = (level - before) / (rewards[above] - before)
        return since + share * (self.seconds[above] - since)


def measure_all(sft: Path, data: Path, seeds: Sequence[int], plan: Plan) -> None:
    """Every seed, both sides in turn; prints the table and the JSON."""
    heldout = data / "heldout_prompts.jsonl"
    work = online_arms.Task(
        policy=sft, base=sft.parent / "pretrain", prompts=data / "prompts.jsonl",
        reward="checked", max_tokens=24, max_length=128, episodes=plan.episodes, lr=LR, kept=True,
    )  # fmt: skip
    start = evaluated([str(sft)], heldout)[0]
    curves: dict[str, list[Curve]] = {"ours": [], "trl": []}
    for at, seed in enumerate(seeds):
        this = replace(work, seed=seed)
        for side in ("ours", "trl") if at % 2 == 0 else ("trl", "ours"):
            measure.say(f"{side}, seed {seed}")
            run = ours if side == "ours" else theirs
            curves[side].append(run(this, plan, start, heldout))
    report(curves, start, seeds, plan)


def ours(task: online_arms.Task, plan: Plan, start: float, heldout: Path) -> Curve:
    """Eight samples, two passes over an episode's pairs, 16 a step, as in the demo."""
    episode = {"count": plan.episodes, "prompts": plan.prompts, "in_flight": 64, "keep_every": 1}
    more = {
        "episodes": episode | {"max_staleness": 0, "timeout_s": 1800},
        "pairs": {"min_margin": 0.5},
        "sampling": {"n": 8, "temperature": 1.0, "max_tokens": task.max_tokens},
    }
    outcome = online_arms.run_ours(task, more, {"epochs": 2})
    return _curve(outcome, outcome.result["models"], 1, start, heldout)


def theirs(task: online_arms.Task, plan: Plan, start: float, heldout: Path) -> Curve:
    """Two samples; a model is kept every few steps, outside of the steps' time."""
    every = max(1, plan.trl_steps // TRL_SAVES)
    folder = online_arms.new_folder("models-")
    this = replace(task, episodes=plan.trl_steps, batch=plan.trl_batch)
    outcome = online_arms.run_theirs(this, "--save-every", str(every), "--out", str(folder))
    models = [str(path) for path in sorted(folder.glob("step-*"))]
    return _curve(outcome, models, every, start, heldout)


def _curve(
    outcome: measure.Outcome, models: list[str], every: int, start: float, heldout: Path
) -> Curve:
    """The curve of a run that kept a model every so many steps; the models are removed."""
    rewards = [start, *evaluated(models, heldout)]
    seconds, total = [0.0], 0.0
    for number, step in enumerate(outcome.result["steps"], start=1):
        total += step["seconds"]
        if number % every == 0:
            seconds.append(total)
    shutil.rmtree(Path(models[0]).parent)
    peak = measure.gib(outcome.peak_pss_bytes)
    return Curve(seconds, rewards, outcome.result["start_seconds"], peak)


def evaluated(models: Sequence[str], heldout: Path) -> list[float]:
    """Mean reward of each model on the held-out prompts, by one evaluator for both sides."""
    command = [measure.OURS, "bench/heldout_reward.py", "--prompts", heldout, *models]
    rewards: list[float] = measure.run_arm(command).result["rewards"]
    return rewards


def report(curves: dict[str, list[Curve]], start: float, seeds: Sequence[int], plan: Plan) -> None:
    """The table of levels, and the JSON."""
    common = min(max(curve.smoothed()) for side in curves.values() for curve in side)
    rows, levels = [], []
    for share in SHARES if common > start else ():
        level = start + share * (common - start)
        times = {side: [curve.reached(level) for curve in curves[side]] for side in curves}
        seconds = {side: measure.spread(values) for side, values in times.items()}
        ratio = measure.ratios(times["trl"], times["ours"])
        whole = {
            side: [at + curve.start_seconds for at, curve in zip(times[side], found, strict=True)]
            for side, found in curves.items()
        }
        with_start = measure.ratios(whole["trl"], whole["ours"])
        rows.append([f"{level:.3f}", seconds["ours"], seconds["trl"], ratio, with_start])
        levels.append(
            {"level": level, "seconds": seconds, "times_faster": ratio}
            | {"times_faster_with_start_up": with_start}
        )
    if not levels:
        measure.say(f"one side never came above the start's {start:.3f}: no level to compare at")
    head = ["held-out reward", "ours, s", "trl, s", "trl / ours", "with start-up"]
    result: dict[str, Any] = {
        "case": "c",
        "plan": vars(plan),
        "seeds": list(seeds),
        "start_reward": start,
        "common_reward": common,
        "levels": levels,
        "curves": {side: [vars(curve) for curve in found] for side, found in curves.items()},
    }
    measure.finish(measure.table(head, rows), result)
