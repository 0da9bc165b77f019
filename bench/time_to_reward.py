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

EPISODES = 8
"""Of ours; of 192 prompts."""
TRL_STEPS = 480
TRL_BATCH = 16
TRL_SAVES = 24
SHARES = (0.25, 0.5, 0.75, 1.0)
LR = 4e-5


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

    def reached(self, level: float) -> float | None:
        """Seconds until the smoothed curve first stands at the level; None when it never does."""
        rewards = self.smoothed()
        for at, reward in enumerate(rewards):
            if reward >= level:
                if at == 0:
                    return self.seconds[0]
                before, since = rewards[at - 1], self.seconds[at - 1]
                share = (level - before) / (reward - before)
                return since + share * (self.seconds[at] - since)
        return None


def measure_all(sft: Path, data: Path, seeds: Sequence[int], episodes: int) -> None:
    """Every seed, both sides in turn; prints the table and the JSON."""
    heldout = data / "heldout_prompts.jsonl"
    work = online_arms.Task(
        policy=sft, base=sft.parent / "pretrain", prompts=data / "prompts.jsonl",
        reward="checked", max_tokens=24, max_length=128, episodes=episodes, lr=LR, kept=True,
    )  # fmt: skip
    start = evaluated([str(sft)], heldout)[0]
    curves: dict[str, list[Curve]] = {"ours": [], "trl": []}
    for at, seed in enumerate(seeds):
        this = replace(work, seed=seed)
        for side in ("ours", "trl") if at % 2 == 0 else ("trl", "ours"):
            measure.say(f"{side}, seed {seed}")
            run = ours if side == "ours" else theirs
            curves[side].append(run(this, start, heldout))
    report(curves, start, seeds)


def ours(task: online_arms.Task, start: float, heldout: Path) -> Curve:
    """Eight samples, 192 prompts an episode, two passes of 16 pairs a step, as in the demo."""
    episode = {"count": task.episodes, "prompts": 192, "in_flight": 64, "keep_every": 1}
    more = {
        "episodes": episode | {"max_staleness": 0, "timeout_s": 1800},
        "pairs": {"min_margin": 0.5},
        "sampling": {"n": 8, "temperature": 1.0, "max_tokens": task.max_tokens},
    }
    outcome = online_arms.run_ours(task, more, {"epochs": 2})
    return _curve(outcome, outcome.result["models"], 1, start, heldout)


def theirs(task: online_arms.Task, start: float, heldout: Path) -> Curve:
    """Two samples; a model is kept every few steps, outside of the steps' time."""
    every = TRL_STEPS // TRL_SAVES
    folder = online_arms.new_folder("models-")
    this = replace(task, episodes=TRL_STEPS, batch=TRL_BATCH)
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


def report(curves: dict[str, list[Curve]], start: float, seeds: Sequence[int]) -> None:
    """The table of levels, and the JSON."""
    common = min(max(curve.smoothed()) for side in curves.values() for curve in side)
    rows, levels = [], []
    for share in SHARES:
        level = start + share * (common - start)
        times: dict[str, list[float]] = {
            side: [curve.reached(level) or float("nan") for curve in curves[side]]
            for side in curves
        }
        ratio = measure.ratios(times["trl"], times["ours"])
        with_start = measure.ratios(
            *(
                [t + c.start_seconds for t, c in zip(times[side], curves[side], strict=True)]
                for side in ("trl", "ours")
            )
        )
        seconds = {side: measure.spread(values) for side, values in times.items()}
        rows.append([f"{level:.3f}", seconds["ours"], seconds["trl"], ratio, with_start])
        levels.append(
            {"level": level, "seconds": seconds, "times_faster": ratio}
            | {"times_faster_with_start_up": with_start}
        )
    head = ["held-out reward", "ours, s", "trl, s", "trl / ours", "with start-up"]
    result: dict[str, Any] = {
        "case": "c",
        "seeds": list(seeds),
        "start_reward": start,
        "common_reward": common,
        "levels": levels,
        "curves": {side: [vars(curve) for curve in found] for side, found in curves.items()},
    }
    measure.finish(measure.table(head, rows), result)
