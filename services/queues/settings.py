"""Settings of the work queues."""

import os
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_serializer, field_validator

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

    @property
    def configured_url(self) -> str | None:
        """`url`, or REDIS_URL; without either the embedded server is meant."""
        return self.url or os.environ.get("REDIS_URL")

    @field_validator("url")
    @classmethod
    def _is_redis(cls, url: str | None) -> str | None:
        if url is not None and urlsplit(url).scheme not in ("redis", "rediss"):
            # Nothing of the address is shown: a mistyped one may hold the password anywhere.
            raise ValueError("no Redis address: write redis://host:port or rediss://host:port")
        return url

    @field_serializer("url", when_used="json")
    def _without_password(self, url: str | None) -> str | None:
        """Configs are written to files: the password stays in REDIS_URL or on the command line."""
        parts = urlsplit(url or "")
        if not url or parts.password is None:
            return url
        return url.replace(f":{parts.password}@", ":***@", 1)
