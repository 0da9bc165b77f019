"""Settings of experiment trackers."""

from typing import Literal

from services.settings import Operational, Settings


class WandbSettings(Settings):
    """Weights & Biases. Its API key is read from WANDB_API_KEY or ~/.netrc, never from a config."""

    project: Operational[str] = "pairloop"
    """Made when it is not there."""
    entity: Operational[str | None] = None
    """User or team; without it the default one of the API key."""
    mode: Operational[Literal["online", "offline"]] = "online"
    """offline: into `wandb/` in the run's folder, for `wandb sync` later."""


class MlflowSettings(Settings):
    """MLflow. Credentials are read from MLFLOW_TRACKING_USERNAME, _PASSWORD or _TOKEN."""

    uri: Operational[str | None] = None
    """Of the tracking server, e.g. http://mlflow:5000, or a folder; without it
    MLFLOW_TRACKING_URI, and without that `mlflow/` in the run's folder."""
    experiment: Operational[str] = "pairloop"
    """Made when it is not there."""


class TrackerSettings(Settings):
    """Who else is told the numbers of a run. A tracker that fails or hangs never holds the run."""

    tensorboard: Operational[bool] = True
    """Event files in `tensorboard/` in the run's folder, a folder a stage."""
    wandb: Operational[WandbSettings | None] = None
    """Its package is the extra `wandb`."""
    mlflow: Operational[MlflowSettings | None] = None
    """Its package is the extra `mlflow`."""
