"""Weights & Biases, by its own client process."""

import uuid
from typing import Any

from services.imports import heavy_imports
from services.telemetry.trackers.kept import keep_run, kept_run
from services.telemetry.trackers.settings import WandbSettings
from services.telemetry.trackers.tracker import Outcome, Told, TrackedRun

_EXIT_CODE = {"finished": 0, "waiting": 0, "interrupted": 130, "failed": 1}


class Wandb:
    """One W&B run for all attempts; metrics are named <stage>/<axis>/<name>.

    Each axis of a stage has steps of its own, as `<stage>/<axis>/step`.
    """

    name = "wandb"

    def __init__(self, settings: WandbSettings) -> None:
        self._settings = settings
        self._run: Any = None
        self._axes: set[str] = set()

    def begin(self, run: TrackedRun) -> None:
        """Take up the run that the folder knows, or begin one."""
        with heavy_imports():
            import wandb
        run_id = kept_run(run.folder, self.name) or uuid.uuid4().hex[:12]
        keep_run(run.folder, self.name, run_id)
        self._run = wandb.init(
            project=self._settings.project,
            entity=self._settings.entity,
            mode=self._settings.mode,
            id=run_id,
            resume="allow",
            name=run.name,
            job_type=run.job,
            dir=str(run.folder),
            config=dict(run.config),
            # The terminal and the code of the command are the run's own.
            settings=wandb.Settings(console="off", silent=True, disable_git=True, save_code=False),
        )

    def scalars(self, told: Told) -> None:
        """One row of its history."""
        axis = f"{told.stage}/{told.axis}"
        if axis not in self._axes:
            self._axes.add(axis)
            self._run.define_metric(f"{axis}/step", hidden=True)
            self._run.define_metric(f"{axis}/*", step_metric=f"{axis}/step")
        values = {f"{told.stage}/{name}": value for name, value in told.named().items()}
        self._run.log({**values, f"{axis}/step": told.step})

    def flush(self) -> None:
        """W&B's process has it."""

    def end(self, outcome: Outcome) -> None:
        """Upload what waits."""
        self._run.finish(exit_code=_EXIT_CODE[outcome])
