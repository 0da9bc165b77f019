"""Settings of the gRPC admin server."""

from pydantic import Field

from services.settings import Operational, Settings


class AdminSettings(Settings):
    """Where the admin API listens."""

    host: Operational[str] = "127.0.0.1"
    """Loopback unless told otherwise."""
    port: Operational[int] = Field(50051, ge=0, le=65535)
    """0 takes a free one; the address is printed."""
