"""What is wrong with configured trackers before a run."""

import importlib.util

from services.errors import ConfigError
from services.telemetry.trackers.settings import TrackerSettings


def check_trackers(settings: TrackerSettings) -> None:
    """Raise ConfigError for a tracker whose package is not installed. Imports none of them."""
    wanted = {"wandb": (settings.wandb, "wandb"), "mlflow": (settings.mlflow, "mlflow-skinny")}
    for module, (configured, package) in wanted.items():
        if configured is not None and importlib.util.find_spec(module) is None:
            raise ConfigError(
                f"'trackers.{module}': its package is not installed; run"
                f" `pip install {package}` where Pairloop is, or remove the key"
            )
