"""MLflow, by its client: a server, or files in the run's folder."""

import os
import re
from pathlib import Path
from typing import Any

from services.imports import heavy_imports
from services.telemetry.trackers.kept import keep_run, kept_run
from services.telemetry.trackers.settings import MlflowSettings
from services.telemetry.trackers.tracker import Outcome, Told, TrackedRun

_STATUS = {
    "finished": "FINISHED",
    "waiting": "SCHEDULED",
    "interrupted": "KILLED",
    "failed": "FAILED",
}
_NOT_IN_NAMES = re.compile(r"[^\w\-./ ]")
_PARAMS_AT_ONCE = 100
_LONGEST_PARAM = 500


class Mlflow:
    """One MLflow run for all attempts; metrics are named <stage>/<axis>/<name>."""

    name = "mlflow"

    def __init__(self, settings: MlflowSettings) -> None:
        self._settings = settings
        self._client: Any = None
        self._run = ""

    def begin(self, run: TrackedRun) -> None:
        """Take up the run that the folder knows, or create one."""
        with heavy_imports():
            from mlflow import MlflowClient
        uri = self._settings.uri or os.environ.get("MLFLOW_TRACKING_URI")
        if uri is None or "://" not in uri:
            # The small package has no database; files are all that a local store can be.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        self._client = MlflowClient(tracking_uri=uri or str(Path(run.folder, "mlflow").resolve()))
        kept = kept_run(run.folder, self.name)
        if kept is not None:
            self._run = kept
            self._client.update_run(kept, status="RUNNING")
            return
        self._run = self._client.create_run(
            self._experiment(), run_name=run.name, tags={"pairloop.job": run.job}
        ).info.run_id
        keep_run(run.folder, self.name, self._run)
        self._log_config(run)

    def scalars(self, told: Told) -> None:
        """One call for all values."""
        from mlflow.entities import Metric

        self._client.log_batch(
            self._run,
            metrics=[
                Metric(
                    _NOT_IN_NAMES.sub("_", f"{told.stage}/{name}"),
                    value, int(told.at * 1000), told.step,
                )
                for name, value in told.named().items()
            ],
        )  # fmt: skip

    def flush(self) -> None:
        """Every call is on its own."""

    def end(self, outcome: Outcome) -> None:
        """Say how it ended; another attempt sets it running again."""
        self._client.set_terminated(self._run, _STATUS[outcome])

    def _experiment(self) -> str:
        name = self._settings.experiment
        found = self._client.get_experiment_by_name(name)
        made: str = found.experiment_id if found else self._client.create_experiment(name)
        return made

    def _log_config(self, run: TrackedRun) -> None:
        from mlflow.entities import Param

        params = [
            Param(_NOT_IN_NAMES.sub("_", key), str(value)[:_LONGEST_PARAM])
            for key, value in run.config.items()
        ]
        for first in range(0, len(params), _PARAMS_AT_ONCE):
            self._client.log_batch(self._run, params=params[first : first + _PARAMS_AT_ONCE])
