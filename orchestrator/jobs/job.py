"""What a job is: one class that declares everything others need to know of it.

A subclass in a file of its own and a line in registry.py are a job. Its fields are its settings;
those that name something to read are marked (services/inputs.py), those that do not change what is
computed too (services/settings.py). Preflight, fingerprints, lineage, recipes, dry-run and the
docs' table of jobs read the declaration; nothing else knows one job from another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from orchestrator.config.ray import RaySettings
from services.admin.settings import AdminSettings
from services.data.settings import DataSource
from services.learner.model.shape import ModelShape
from services.queues.settings import QueueSettings
from services.rollout.settings import EngineSettings
from services.settings import Operational, Settings
from services.telemetry.log.settings import LogSettings
from services.telemetry.metrics.settings import MetricsSettings
from services.telemetry.tracing.settings import TracingSettings
from services.telemetry.trackers.settings import TrackerSettings

if TYPE_CHECKING:
    from orchestrator.artifacts.lineage import Lineage, Parent
    from orchestrator.stages.context import StageContext

Makes = Literal["policy", "reward model", "dataset", "report"]


@dataclass(frozen=True)
class Listener:
    """A port that a service of the job listens on."""

    host: str
    port: int
    """0: a free one."""
    key: str
    """Where a user sets it, e.g. "reward.port"."""
    every_node: bool = False
    """Whether workers on other nodes connect to it."""


class Job(Settings):
    """Base of every job; also what a job may leave as it is."""

    makes: ClassVar[Makes]
    """What its artifact is."""
    may_wait: ClassVar[bool] = False
    """Whether `run` may raise Waiting: for people, or for an event outside."""
    aligns: ClassVar[bool] = False
    """Whether it trains a policy on preferences: its own policy is no reference for the next."""
    resume: ClassVar[str] = ""
    """Folder in its scratch that goes into the artifact as `resume/`, for a larger extent."""

    job: str
    name: Operational[str] = Field("", pattern=r"^[A-Za-z0-9._-]*$")
    """Of the run, and of its folder; by default the job's kind."""
    output: Operational[str] = "runs"
    """The run's folder is <output>/<name>."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Of all that is drawn: order of rows, new weights, samples, masks. A stage without one has its
    recipe's."""
    ray: Operational[RaySettings] = RaySettings()
    """Where it runs."""
    metrics: Operational[MetricsSettings] = MetricsSettings()
    """For Prometheus to scrape, the whole run long."""
    admin: Operational[AdminSettings] = AdminSettings()
    """Where people and programs look at the run, pause and stop it, the whole run long."""
    trackers: Operational[TrackerSettings] = TrackerSettings()
    """TensorBoard, W&B, MLflow."""
    log: Operational[LogSettings] = LogSettings()
    """What the command prints."""
    tracing: Operational[TracingSettings] = TracingSettings()
    """Where each prompt's way through the processes is told."""

    def expand(self) -> "Mapping[str, Job]":
        """The stages of a run of this job, by name, in order."""
        return {self.job: self}

    def place(self, stage: str, key: str) -> str:
        """Where this config holds a key of one of its stages."""
        return key

    def parents(self, lineage: "Lineage") -> "Mapping[str, Parent]":
        """Models that are read beside the named inputs, by role: found through lineage."""
        return {}

    def check(self, lineage: "Lineage") -> None:
        """Raise the first error that the inputs, each by itself, do not show."""

    def warnings(self) -> Sequence[str]:
        """What is legal in these settings and yet likely a mistake, one line each."""
        return []

    def engines(self) -> Sequence[EngineSettings]:
        """The engines it starts."""
        return []

    def listeners(self) -> Sequence[Listener]:
        """The ports it takes."""
        return []

    def own_listeners(self) -> Sequence[Listener]:
        """The ports that its run takes, whatever the stage."""
        found = []
        if "port" in self.admin.model_fields_set:  # where its default is taken it finds another
            found.append(Listener(self.admin.host, self.admin.port, "admin.port"))
        if self.admin.console_port and "console_port" in self.admin.model_fields_set:
            port = self.admin.console_port
            found.append(Listener(self.admin.host, port, "admin.console_port"))
        if self.metrics.port is not None:
            found.append(Listener(self.metrics.host, self.metrics.port, "metrics.port"))
        return found

    def redis(self) -> QueueSettings | None:
        """The queues it needs, if it does."""
        return None

    def new_shape(self) -> ModelShape | None:
        """Of the model it makes from nothing, if it does."""
        return None

    def records(self) -> bool:
        """Whether its artifact holds the rollouts it was trained on."""
        return False

    def preference_prompts(self) -> Sequence[DataSource]:
        """The prompts that it makes preference data from."""
        return []

    def made_nothing(self, folder: Path, metrics: Mapping[str, float]) -> bool:
        """Whether a finished artifact was trained on nothing: such a one is never reused."""
        return any(metrics.get(name) == 0 for name in ("steps", "examples", "trained_pairs"))

    async def run(self, context: "StageContext") -> dict[str, float]:
        """Do the work, fill `context.out`, return metrics. Imports what is heavy by itself."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it runs")

    def recall(self, folder: Path, context: "StageContext") -> None:
        """Report again what the finished artifact in `folder` showed, as it is reused."""
