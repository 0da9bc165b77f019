"""What a Redis server refuses, in our words."""

from services.errors import (
    CAUSE_CHARACTERS,
    PairloopError,
    ReplacedError,
    ResourceError,
    UnreachableError,
    shortened,
)

_FOR_NOW = (
    "READONLY", "MASTERDOWN", "CLUSTERDOWN", "LOADING", "TRYAGAIN", "NOREPLICAS", "MISCONF",
    "No matching script",
)  # fmt: skip
"""What a server says while another takes its place, while it starts, while its disk is full; the
last, where it was given a script, and died, and came back."""


class AwayError(UnreachableError):
    """The server does not answer, or refuses to write, for now."""

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(f"{what}: {advice}")
        self.what, self._advice = what, advice

    def __reduce__(self) -> tuple[type["AwayError"], tuple[str, str]]:
        """It goes from process to process."""
        return AwayError, (self.what, self._advice)


def refused(said: str, address: str) -> PairloopError | None:
    """The server's error as one of ours; None for one that it should never say.

    A script's error has the text that we look for at its beginning or, up to Redis 6, somewhere
    inside.
    """
    if said.startswith("EPOCH"):
        return ReplacedError(
            "another orchestrator has taken this run over since; what this one started ends"
        )
    if said.startswith("FENCED"):
        return ReplacedError(
            "this worker was taken for dead and another has its work; its process ends"
        )
    if any(word in said for word in _FOR_NOW):
        return AwayError(
            f"Redis at {address} does not take writes now ({shortened(said, CAUSE_CHARACTERS)})",
            "queues.url must lead to the primary, and its disk have room",
        )
    if "OOM command" in said:
        return ResourceError(
            f"Redis at {address} cannot write: {shortened(said, CAUSE_CHARACTERS)}: give it memory"
        )
    return None


def silent(address: str) -> AwayError:
    """For a server that gives no answer."""
    return AwayError(
        f"Redis at {address} does not answer",
        "start it, correct queues.url or REDIS_URL, or leave both out for an embedded server",
    )
