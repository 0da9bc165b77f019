"""What the doctor looks at: this machine alone, or with what a config needs of it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from orchestrator.config.ray import RaySettings
from orchestrator.jobs.job import Job, Listener
from orchestrator.stages.plan import run_folder
from services.admin.settings import AdminSettings
from services.queues.settings import QueueSettings


@dataclass(frozen=True)
class Subject:
    """A job to be run here; None: any."""

    job: Job | None = None

    @cached_property
    def stages(self) -> Mapping[str, Job]:
        """Of the job, by name."""
        return self.job.expand() if self.job else {}

    @property
    def ray(self) -> RaySettings:
        """The cluster that is meant."""
        return self.job.ray if self.job else RaySettings()

    @property
    def cluster(self) -> str:
        """Address of a cluster that is there already; "": a local Ray is started."""
        address = self.ray.address or os.environ.get("RAY_ADDRESS", "")
        return "" if address == "local" else address

    @property
    def folder(self) -> Path:
        """Where the run's files go."""
        return run_folder(self.job) if self.job else Path("runs")

    @property
    def queues(self) -> list[QueueSettings]:
        """Of every Redis that is used, each once; where nothing says so, of one by default."""
        if not self.job:
            return [QueueSettings()]
        wanted = [queues for stage in self.stages.values() if (queues := stage.redis())]
        return list({queues.configured_url: queues for queues in wanted}.values())

    @property
    def listeners(self) -> list[Listener]:
        """Every port that is taken; without a config the one that has a number by default."""
        if not self.job:
            admin = AdminSettings()
            return [Listener(admin.host, admin.port, "admin.port")]
        of_stages = (each for stage in self.stages.values() for each in stage.listeners())
        return list(dict.fromkeys([*of_stages, *self.job.own_listeners()]))

    @property
    def samples(self) -> bool:
        """Whether vLLM is needed."""
        return not self.job or any(stage.engines() for stage in self.stages.values())
