"""Settings of the work queues."""

from typing import Literal

from pydantic import Field

from services.settings import Settings


class QueueSettings(Settings):
    """Redis Streams between the services."""

    url: str | None = None
    """redis:// or rediss:// address; without it REDIS_URL, and without that an embedded server."""
    fsync: Literal["everysec", "always"] = "everysec"
    """Of the embedded server's append-only file: "everysec" may lose a second on power loss."""
    credits: int = Field(512, ge=1)
    """Prompts between dispatch and training at most: the backpressure."""
    max_deliveries: int = Field(3, ge=1)
    """Tries of one item before it goes to the dead letters."""
    reclaim_idle_s: float = Field(300.0, gt=0.0)
    """An item a worker has held this long is given to another; above the slowest handler."""
    connect_timeout_s: float = Field(5.0, gt=0.0)
