"""Settings of weight sync."""

from typing import Literal

from pydantic import Field

from services.settings import Operational, Settings


class SyncSettings(Settings):
    """How weights reach the engines."""

    transport: Operational[Literal["object_store"]] = "object_store"
    """Ray's object store, by which a version goes to each node once."""
    canary_tolerance: Operational[float | None] = Field(None, gt=0.0)
    """Nats; by default 5e-4 for float32 engines and 0.1 for 16-bit ones."""
    timeout_s: Operational[float] = Field(300.0, gt=0.0)
    """How long one load of a version may take."""
