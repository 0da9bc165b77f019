"""What every tracker is: three calls, made one after the other from a thread of its own."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

Outcome = Literal["finished", "waiting", "interrupted", "failed"]
"""How an attempt at a run ended."""


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """The run that is told of, without a secret."""

    name: str
    job: str
    folder: Path
    config: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    """By dotted key."""
    anew: frozenset[str] = frozenset()
    """Stages told of by an earlier attempt that begin again: what was told of them holds no more.
    """


@dataclass(frozen=True, slots=True)
class Told:
    """Numbers of one moment."""

    stage: str
    axis: str
    """What `step` counts: "train" optimizer steps, "episode" episodes, "evaluation" and "finished"
    the steps or episodes that the model had behind it."""
    step: int
    at: float
    """Seconds since the epoch."""
    values: Mapping[str, float]

    def named(self) -> dict[str, float]:
        """The values by axis and name: "train/loss"."""
        return {f"{self.axis}/{name}": value for name, value in self.values.items()}


class Tracker(Protocol):
    """Keeps a run's numbers for people to compare. Any of these may raise, block, or take long."""

    @property
    def name(self) -> str:
        """As users know it."""

    def begin(self, run: TrackedRun) -> None:
        """Go on with what an earlier attempt began, unless stages begin anew."""

    def scalars(self, told: Told) -> None:
        """Keep these; on each axis of a stage the steps only rise."""

    def flush(self) -> None:
        """What was kept is safe against a death of this process afterwards, where that is quick."""

    def end(self, outcome: Outcome) -> None:
        """Of this attempt; nothing follows."""
