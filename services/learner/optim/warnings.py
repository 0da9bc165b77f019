"""What is legal in training settings and yet likely a mistake."""

import math

from services.learner.settings import AdamWSettings, OptimizerSettings, TrainSettings

_LEAST_EXPECTED_STEP = 1e-7
"""reserve * lr below this barely moves a model: the published runs use lr 5e-7 and above."""
_COLLAPSE_ALPHA = 1e-4
"""arXiv 2405.17931: training collapses from here on, 1e-7 to 5e-6 is best."""


def optimizer_warnings(settings: OptimizerSettings) -> list[str]:
    """Warnings about an optimizer's settings, one line each; empty when there is none."""
    if isinstance(settings, AdamWSettings):
        return []
    found = []
    divided = settings.rescale or (settings.kind == "ondare" and settings.mode == "official")
    expected = settings.reserve * settings.lr
    if settings.kind == "ondare" and not divided and settings.reserve < 1.0:
        small = settings.reserve <= 0.05 and settings.lr < 1e-3
        if small or expected < _LEAST_EXPECTED_STEP:
            found.append(
                f"ondare with reserve {settings.reserve:g} and no rescale takes expected steps of "
                f"{settings.reserve:g} x Adam's, so lr {settings.lr:g} acts like {expected:g}: "
                f"set rescale: true, or raise lr to about {settings.lr / settings.reserve:g}"
            )
    if settings.alpha >= _COLLAPSE_ALPHA:
        found.append(
            f"{settings.kind} with alpha {settings.alpha:g}: the paper saw training collapse at "
            "1e-4; its best region is 1e-7 to 5e-6"
        )
    if settings.weight_decay > 0 and settings.reserve < 1.0:
        found.append(
            f"weight_decay {settings.weight_decay:g} moves every value of every matrix, so weight "
            "deltas are no longer sparse; set it to 0 to keep them small"
        )
    return found


def warmup_warnings(train: TrainSettings, examples: int | None, rounds: int = 1) -> list[str]:
    """A warning when more than half of the steps warm up: the peak is never or hardly reached.

    `examples` are those of one of `rounds` episodes at most; None when they are not known.
    """
    warmup = train.schedule.warmup_steps
    steps = train.max_steps
    if steps is None and examples is not None:
        steps = math.ceil(max(1, round(examples * train.epochs)) / train.batch_size)
    if steps is None or 2 * warmup <= steps * rounds:
        return []
    steps *= rounds
    plural = "s" if steps > 1 else ""
    end = f", which ends at {steps / warmup:.0%} of the learning rate" if steps < warmup else ""
    return [
        f"train.schedule.warmup_steps {warmup} is more than half of the run's {steps}"
        f" step{plural}{end}: lower it, or set train.schedule.warmup_ratio=0.1 instead"
    ]
