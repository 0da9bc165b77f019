"""Settings of pairing."""

from pydantic import Field

from services.settings import Operational, Settings


class PairSettings(Settings):
    """When a scored group becomes a pair."""

    min_margin: float = Field(0.0, ge=0.0)
    """Drop a pair whose score margin is under this; 0 drops ties alone."""
    workers: Operational[int] = Field(1, ge=1)
    """Pairing actors."""
    concurrency: Operational[int] = Field(32, ge=1)
    """Groups one actor scores at once."""
