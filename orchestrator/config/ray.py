"""Settings of the cluster."""

from pydantic import Field

from services.settings import Operational, Settings


class RaySettings(Settings):
    """The cluster a run uses."""

    address: Operational[str | None] = None
    """Without it RAY_ADDRESS, and without that a local Ray is started."""
    num_cpus: Operational[int | None] = Field(None, ge=1)
    """Logical CPUs of a local Ray; by default enough for every actor of the job."""
    object_store_gib: Operational[float] = Field(0.5, gt=0.0)
    """Shared memory of a local Ray's object store."""
