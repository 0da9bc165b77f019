"""Settings of tracing."""

from pydantic import Field

from services.settings import Operational, Settings


class TracingSettings(Settings):
    """OpenTelemetry spans that follow each prompt of an online stage: docs/tracing.md."""

    endpoint: Operational[str | None] = Field(None, pattern=r"^(https?://.+|file:.+)$")
    """Of an OTLP collector over HTTP, e.g. http://collector:4318; or file:NAME, JSON lines in a
    file, in the run's folder unless it is absolute. Nothing is traced without it."""
    sample_ratio: Operational[float] = Field(1.0, gt=0.0, le=1.0)
    """Share of the prompts that are traced, each as a whole."""
