"""Settings of what a process says on its terminal or into its log."""

from services.settings import Operational, Settings
from services.telemetry.log.lines import LogFormat


class LogSettings(Settings):
    """For people, or for what collects the logs of many processes."""

    format: Operational[LogFormat | None] = None
    """json: an object a line, and no live screen. Without it PAIRLOOP_LOG_FORMAT, and without that
    text."""
