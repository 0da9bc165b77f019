"""Axes of a plot: where ticks stand and how they read. Pure numbers, no drawing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from services.telemetry.format import count


@dataclass(frozen=True, slots=True)
class Axis:
    """A range of values and its ticks."""

    low: float
    high: float
    ticks: tuple[float, ...]
    labels: tuple[str, ...]

    def place(self, value: float) -> float:
        """0 at `low`, 1 at `high`."""
        return (value - self.low) / (self.high - self.low)


def axis(
    values: Sequence[float],
    tick_count: int = 5,
    whole: bool = False,
    zero: bool = False,
    tight: bool = False,
    limits: tuple[float, float] = (-math.inf, math.inf),
) -> Axis:
    """The axis that holds every value, with about `tick_count` ticks: 1, 2 or 5 times 10^n.

    `whole`: ticks are integers. `zero`: the axis starts at 0. `tight`: it ends at the values,
    not at the next tick. `limits`: what it may never pass (an accuracy ends at 1).
    """
    low, high = min(values), max(values)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if high - low <= 1e-12 * max(1.0, abs(high)):
        pad = 1.0 if whole else (abs(high) * 0.1 or 1.0)
        low, high = (low if zero and low == 0 else low - pad), high + pad
        low, high = max(low, limits[0]), min(high, limits[1])
    step = _step((high - low) / tick_count, whole)
    if not tight:
        low = max(limits[0], math.floor(low / step + 1e-9) * step)
        high = min(limits[1], math.ceil(high / step - 1e-9) * step)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    ticks = tuple(index * step for index in range(first, last + 1))
    return Axis(low, high, ticks, tuple(_label(tick, step) for tick in ticks))


def _step(rough: float, whole: bool) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    return max(1.0, step) if whole else step


def _label(tick: float, step: float) -> str:
    if abs(tick) < step / 1000:
        return "0"
    if abs(tick) >= 10_000:
        return count(tick)
    if step < 1e-4:
        digits = math.floor(math.log10(abs(tick)) + 1e-9) - math.floor(math.log10(step) + 1e-9)
        return f"{tick:.{digits}e}".replace("e-0", "e-")
    return f"{tick:.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"
