"""What a run showed, in plain sentences a reader can check against the numbers below them."""

import math

from services.telemetry.format import number
from services.telemetry.record.events import Evaluated
from services.telemetry.record.state import RunState, Stage

_JOBS_BEFORE = ("sft", "pretrain")
"""Whose accuracy the last policy is compared with, best first."""


def verdict(state: RunState) -> list[str]:
    """One to four sentences, the main one first; empty when nothing was measured."""
    pair = _compared(state.evaluated())
    if pair is not None:
        before, after = pair
        return [_accuracy(before, after), *_side_effects(before, after), *_reward(state)]
    measured = [s for s in state.evaluated() if _evaluation(s).sampled is not None]
    if measured:
        return [_single(measured[-1]), *_reward(state)]
    return _reward(state) or _loss(state)


def interval(p: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share `p` of `n` answers, taken as independent."""
    if n <= 0:
        return 0.0, 1.0
    z = 1.96
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def _compared(stages: list[Stage]) -> tuple[Stage, Stage] | None:
    measured = [s for s in stages if _evaluation(s).sampled is not None]
    for job in _JOBS_BEFORE:
        for before in measured[:-1]:
            if before.job == job:
                return before, measured[-1]
    return (measured[0], measured[-1]) if len(measured) > 1 else None


def _evaluation(stage: Stage) -> Evaluated:
    if stage.evaluation is None:
        raise ValueError(f"{stage.name} was not evaluated")
    return stage.evaluation


def _accuracy(before: Stage, after: Stage) -> str:
    first, last = _evaluation(before), _evaluation(after)
    a, b = first.sampled or 0.0, last.sampled or 0.0
    verb = "rose" if b > a else "fell"
    text = f"Sampled accuracy {verb} from {a:.2f} after {before.name} to {b:.2f} after {after.name}"
    if not _clear(a, first.sampled_n, b, last.sampled_n):
        return (
            f"Sampled accuracy is {a:.2f} after {before.name} and {b:.2f} after {after.name}: "
            "a difference that chance alone can make."
        )
    if first.greedy is not None and last.greedy is not None:
        text += f" (greedy: {first.greedy:.2f} to {last.greedy:.2f})"
    return text + "."


def _clear(a: float, n: int, b: float, m: int) -> bool:
    """Whether two shares differ by more than 1.96 standard errors."""
    if not n or not m:
        return a != b
    pooled = (a * n + b * m) / (n + m)
    return abs(a - b) > 1.96 * math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))


def _side_effects(before: Stage, after: Stage) -> list[str]:
    """What training on preferences did to what they do not hold."""
    first, last = _evaluation(before), _evaluation(after)
    sentences = []
    outside = [n for n, s in last.skills.items() if not s.in_preferences and n in first.skills]
    if outside:
        a, n = _pooled(first, outside)
        b, m = _pooled(last, outside)
        unclear = "" if _clear(a, n, b, m) else ", no clear change"
        sentences.append(f"On skills outside the preference data: {a:.2f} to {b:.2f}{unclear}.")
    if first.lm_loss is not None and last.lm_loss is not None:
        sentences.append(
            f"Held-out language-model loss: {first.lm_loss:.3f} to {last.lm_loss:.3f} nats a token."
        )
    return sentences


def _pooled(evaluation: Evaluated, skills: list[str]) -> tuple[float, int]:
    """Share of right sampled answers over several skills, and how many answers."""
    chosen = [evaluation.skills[name] for name in skills]
    total = sum(skill.sampled_n for skill in chosen)
    right = sum(skill.sampled * skill.sampled_n for skill in chosen)
    return (right / total if total else 0.0), total


def _single(stage: Stage) -> str:
    evaluation = _evaluation(stage)
    greedy = "" if evaluation.greedy is None else f", {evaluation.greedy:.0%} greedily"
    name = evaluation.policy or stage.name
    return f"{name} answers {evaluation.sampled or 0.0:.0%} right when sampled{greedy}."


def _reward(state: RunState) -> list[str]:
    sentences = []
    for stage in state.ordered():
        done = [e for e in stage.finished_episodes() if "reward_mean" in e.metrics]
        if len(done) > 1:
            a, b = done[0], done[-1]
            sentences.append(
                f"The mean reward went from {number(a.metrics['reward_mean'])} in episode "
                f"{a.number} to {number(b.metrics['reward_mean'])} in episode {b.number} "
                f"({stage.name})."
            )
    return sentences


def _loss(state: RunState) -> list[str]:
    for stage in reversed(state.ordered()):
        losses = [(p.step, p.metrics["loss"]) for p in stage.curve if "loss" in p.metrics]
        if len(losses) > 1:
            (_, a), (step, b) = losses[0], losses[-1]
            went = f"from {number(a)} to {number(b)} in {step} steps"
            return [f"The training loss of {stage.name} went {went}."]
    return []
