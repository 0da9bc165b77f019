"""What a job is given: the run it belongs to, and where its stage may write."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.stages.engines import EnginePool
from services.telemetry.record.events import Event


@dataclass(frozen=True)
class RunContext:
    """What the stages of one run share."""

    name: str
    folder: Path
    seed: int
    report: Callable[[Event], None]
    """Record an event, from this process."""
    sink: Any
    """The EventSink actor, for events from other processes."""
    engines: EnginePool


@dataclass(frozen=True)
class StageContext:
    """What a job gets beside its config."""

    run: RunContext
    stage: str
    out: Path
    """The artifact's folder under its partial name; the job fills it."""
    scratch: Path
    """Kept until the stage is done: what an interrupted job goes on from."""
    fingerprint: str
