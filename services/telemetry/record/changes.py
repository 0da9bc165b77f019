"""What a stage did to a policy: each figure before and after it, and whether chance can make that.

A figure is compared with that of the model the stage trained, so that every gain and every cost is
told of the stage that made it.
"""

import math
from dataclasses import dataclass

from services.telemetry.record.events import Evaluated
from services.telemetry.record.state import RunState, Stage

_LOSS_MOVED = 0.01
"""Share of a held-out loss above which it has moved: its texts are the same each time."""


@dataclass(frozen=True, slots=True)
class Change:
    """One figure of a policy, before and after a stage."""

    name: str
    before: float
    after: float
    clear: bool
    """Whether the difference is more than chance makes of equal policies."""
    better: bool
    unit: str = ""

    def __str__(self) -> str:
        digits = 2 if max(self.before, self.after) < 10 else 1
        before, after = f"{self.before:.{digits}f}", f"{self.after:.{digits}f}"
        text = f"{self.name} {before}" + (f" to {after}" if after != before else "")
        return f"{text} {self.unit}" if self.unit else text


def before_and_after(state: RunState, stage: Stage) -> list[Change]:
    """The figures of a stage's model against those of the model it was trained from."""
    after, before = stage.evaluation, _measured_before(state, stage)
    if after is None or before is None:
        return []
    found = []
    if before.sampled is not None and after.sampled is not None:
        a, b = (before.sampled, before.sampled_n), (after.sampled, after.sampled_n)
        found.append(_share("sampled accuracy", a, b))
    if before.greedy is not None and after.greedy is not None:
        a, b = (before.greedy, before.greedy_n), (after.greedy, after.greedy_n)
        found.append(_share("greedy accuracy", a, b))
    outside = [n for n, s in after.skills.items() if not s.in_preferences and n in before.skills]
    if outside:
        name = "skills outside the preference data"
        found.append(_share(name, _pooled(before, outside), _pooled(after, outside)))
    if before.lm_loss is not None and after.lm_loss is not None:
        moved = abs(after.lm_loss - before.lm_loss) > _LOSS_MOVED * before.lm_loss
        lower = after.lm_loss < before.lm_loss
        unit = "nats a token"
        found.append(Change("held-out loss", before.lm_loss, after.lm_loss, moved, lower, unit))
    return found


def interval(p: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share `p` of `n` answers, taken as independent."""
    if n <= 0:
        return 0.0, 1.0
    z = 1.96
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def _measured_before(state: RunState, stage: Stage) -> Evaluated | None:
    """Of the model the stage trained: another stage's, or one that the run only measured."""
    if not stage.policy:
        return None
    if stage.policy in state.stages:
        return state.stages[stage.policy].evaluation
    found = [each.evaluation for each in state.evaluated() if each is not stage]
    return next((e for e in found if e is not None and e.policy == stage.policy), None)


def _share(name: str, before: tuple[float, int], after: tuple[float, int]) -> Change:
    (a, n), (b, m) = before, after
    return Change(name, a, b, _clear(a, n, b, m), b > a)


def _clear(a: float, n: int, b: float, m: int) -> bool:
    """Whether two shares differ by more than 1.96 standard errors."""
    if not n or not m:
        return a != b
    pooled = (a * n + b * m) / (n + m)
    return abs(a - b) > 1.96 * math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))


def _pooled(evaluation: Evaluated, skills: list[str]) -> tuple[float, int]:
    """Share of right sampled answers over several skills, and how many answers."""
    chosen = [evaluation.skills[name] for name in skills]
    total = sum(skill.sampled_n for skill in chosen)
    right = sum(skill.sampled * skill.sampled_n for skill in chosen)
    return (right / total if total else 0.0), total
