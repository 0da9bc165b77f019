"""Settings of the Prometheus exporter."""

from pydantic import Field

from services.settings import Operational, Settings


class MetricsSettings(Settings):
    """Where a run's metrics can be scraped, the whole run long."""

    host: Operational[str] = "127.0.0.1"
    """Loopback unless told otherwise: whoever reaches the port reads the metrics, without a
    password."""
    port: Operational[int | None] = Field(None, ge=0, le=65535)
    """Of http://host:port/metrics. Nothing listens without it; 0 takes a free one, and the address
    is printed."""
