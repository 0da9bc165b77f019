"""How a run looks after its parts."""

from pydantic import Field

from services.settings import Operational, Settings


class RestartSettings(Settings):
    """What a run consists of is replaced when it dies or hangs: engines, pairing workers, learner,
    reward gateway, weight version store."""

    count: Operational[int] = Field(5, ge=0)
    """Of one part within `within_s`; its next end ends the run, or, where other engines or pairing
    workers are left, this one alone: another is started then. With 0 the first end ends the run."""
    within_s: Operational[float] = Field(3600.0, gt=0.0)
    """Seconds after which an end is forgotten."""
    backoff_s: Operational[float] = Field(1.0, ge=0.0)
    """Seconds before a part is replaced; twice as long each time, a minute at most."""
    silence_s: Operational[float] = Field(120.0, gt=0.0)
    """Without an answer for so long a part hangs. To load weights an engine has sync.timeout_s; a
    step of vLLM must be shorter."""
    drain_s: Operational[float] = Field(120.0, ge=0.0)
    """Seconds that a worker which leaves (`workers scale`) has to finish what it holds; the rest
    goes to the others."""
