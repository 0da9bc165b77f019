"""What a Redis server refuses, in our words."""

import re

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

_DENIED = ("NOPERM", "user executing the script can't")
"""What a user is told who lacks a right; the second by Redis 6, in a script."""


class AwayError(UnreachableError):
    """The server does not answer, or refuses to write, for now."""

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(f"{what}: {advice}")
        self.what, self._advice = what, advice

    def __reduce__(self) -> tuple[type["AwayError"], tuple[str, str]]:
        """It goes from process to process."""
        return AwayError, (self.what, self._advice)


def refused(said: str, address: str, script: str = "") -> PairloopError | None:
    """The server's error as one of ours; None for one that it should never say.

    A script's error has the text that we look for at its beginning or, up to Redis 6, somewhere
    inside. `script`: its source.
    """
    if any(words in said for words in _DENIED):
        return UnreachableError(
            f"Redis at {address} does not let its user {_forbidden(said, script)}; grant, with ACL"
            " SETUSER, what docs/jobs.md lists at queues.url"
        )
    if said.startswith("EPOCH"):
        return ReplacedError(
            "another orchestrator has taken this run over since; what this one started ends"
        )
    if said.startswith("FENCED"):
        return fenced()
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


def distrusted(address: str, fault: str) -> UnreachableError:
    """For a server whose certificate, or ours, is refused."""
    return UnreachableError(
        f"TLS with Redis at {address} fails: {shortened(fault, CAUSE_CHARACTERS)}; the options"
        " ssl_ca_certs, ssl_certfile and ssl_keyfile of queues.url name the files to use"
    )


def _forbidden(said: str, script: str) -> str:
    """What NOPERM is about: "run XADD"."""
    if " key" in said:
        return "use the keys that begin with pairloop:"
    if named := re.search(r"'([^']+)' command", said):
        return f"run {named[1].upper()}"
    # Redis 6 tells the line of the script alone, or where an error was passed on, one below it.
    at = re.search(r"user_script: ?(\d+)", said)
    above = reversed(script.splitlines()[: int(at[1])] if at else [])
    called = next(filter(None, (re.findall(r"redis\.p?call\('(\w+)'", line) for line in above)), [])
    return f"run {' or '.join(dict.fromkeys(called))}" if called else "run a command"


def fenced() -> ReplacedError:
    """For a consumer whose items were given back."""
    return ReplacedError(
        "this worker was taken for dead and another has its work; its process ends"
    )


def silent(address: str) -> AwayError:
    """For a server that gives no answer."""
    last = "leave both out for an embedded server"
    if address.startswith("rediss"):
        # A server that misses a client's certificate closes the connection without a word.
        last = "give the certificate that it may ask for, by ssl_certfile and ssl_keyfile"
    return AwayError(
        f"Redis at {address} does not answer",
        f"start it, correct queues.url or REDIS_URL, or {last}",
    )
