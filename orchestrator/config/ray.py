"""Settings of the cluster."""

from pydantic import Field, model_validator

from services.settings import Operational, Settings


class RaySettings(Settings):
    """The cluster a run uses."""

    address: Operational[str | None] = None
    """Without it RAY_ADDRESS, and without that a local Ray is started."""
    num_cpus: Operational[int | None] = Field(None, ge=1)
    """Logical CPUs of a local Ray; by default enough for every actor of the job."""
    object_store_gib: Operational[float | None] = Field(None, gt=0.0)
    """Room of a local Ray's object store, which lies in shared memory; by default what the weights
    on their way to the engines need."""
    keep: Operational[bool] = False
    """The local Ray stays when the run ends, for the next one under the same output folder: it
    starts sooner. Ends after an hour without a run, or by `make stop-ray`."""

    @model_validator(mode="after")
    def _keeps_its_own(self) -> "RaySettings":
        if self.keep and self.address is not None:
            raise ValueError("ray.keep keeps a local Ray, and ray.address names one: remove either")
        return self
