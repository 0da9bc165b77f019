"""What a job is given: the run it belongs to, and where its stage may write."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from orchestrator.control.hold import RunHold
from orchestrator.control.live import LiveRun
from pairloop.admin.v1.admin_pb2 import Run
from services.telemetry.record.events import Event, Note, PartReplaced
from services.telemetry.record.state import RunState

if TYPE_CHECKING:
    from orchestrator.stages.engines import EnginePool
    from services.telemetry.metrics.asked import Asking


@dataclass(frozen=True)
class RunContext:
    """What the stages of one run share."""

    name: str
    folder: Path
    report: Callable[[Event], None]
    """Record an event, from this process."""
    state: RunState = field(default_factory=RunState)
    """What was recorded so far, in earlier attempts too."""
    live: LiveRun = field(default=None)  # type: ignore[assignment]
    """What others see of the run and ask of it; filled in as it goes on."""
    sink: Any = None
    """The EventSink actor, for events from other processes."""
    engines: "EnginePool" = field(default=None)  # type: ignore[assignment]
    """Of the run; there once Ray is."""
    asking: "Asking | None" = None
    """Where a stage says how it can be asked for metrics; None where nobody scrapes."""

    def __post_init__(self) -> None:
        if cast("LiveRun | None", self.live) is None:
            own = Run()
            object.__setattr__(self, "live", LiveRun(own, RunHold(self.folder, own)))


@dataclass(frozen=True)
class StageContext:
    """What a job gets beside its settings."""

    run: RunContext
    stage: str
    seed: int
    out: Path
    """The artifact's folder under its partial name; the job fills it."""
    scratch: Path
    """Kept until the stage is done: what an interrupted job goes on from."""
    trunk: str
    """Names this work: the same for every attempt at it, and for a larger extent."""
    parents: Mapping[str, str] = field(default_factory=dict)
    """What the job's `parents` found, by role."""
    extends: Path | None = None
    """The finished artifact that this stage goes on from."""

    def warn(self, text: str) -> None:
        """Record something that a person should see, and that ends nothing."""
        self.run.report(Note(stage=self.stage, text=text, level="warning"))

    def replaced(self, part: str) -> None:
        """Record that a part of the stage ended and is replaced."""
        self.run.report(PartReplaced(stage=self.stage, part=part))
