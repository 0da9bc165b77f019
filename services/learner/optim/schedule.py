"""The learning rate over the steps."""

import math

from services.learner.settings import ScheduleSettings


def lr_factor(settings: ScheduleSettings, step: float, steps: float) -> float:
    """Learning rate over its peak at a step counted from 0, of `steps` in all.

    Linear warm-up from 1/`warmup_steps` to 1, then constant, or linear or cosine down to
    `min_ratio`, which a step `steps` would reach. `step` may lie between two integers: the online
    learner spreads an episode's steps over the room planned for them.
    """
    warmup = warmup_steps(settings, steps)
    if step < warmup:
        return min(1.0, (step + 1.0) / warmup)
    if settings.kind == "constant":
        return 1.0
    room = max(1.0, steps - warmup)
    done = min(1.0, (step - warmup) / room)
    left = 1.0 - done if settings.kind == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
    return settings.min_ratio + (1.0 - settings.min_ratio) * left


def warmup_steps(settings: ScheduleSettings, steps: float) -> int:
    """Steps of the warm-up, of `steps` in all."""
    return settings.warmup_steps or math.ceil(settings.warmup_ratio * steps)
