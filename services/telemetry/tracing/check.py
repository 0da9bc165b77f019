"""What is wrong with configured tracing before a run."""

import importlib.util

from services.errors import ConfigError
from services.telemetry.tracing.settings import TracingSettings


def check_tracing(settings: TracingSettings) -> None:
    """Raise ConfigError where OpenTelemetry is not installed. Imports none of it."""
    if settings.endpoint is None:
        return
    for module in ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http"):
        try:
            found = importlib.util.find_spec(module)
        except ModuleNotFoundError:
            found = None
        if found is None:
            raise ConfigError(
                "'tracing.endpoint': OpenTelemetry is not installed; run `pip install"
                " opentelemetry-sdk opentelemetry-exporter-otlp-proto-http` where Pairloop is, or"
                " remove the key"
            )
