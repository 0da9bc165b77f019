"""What Ray wraps around an error is taken off here, and nowhere else.

Ray hands on what a call raised inside a RayTaskError, whose text is a traceback, and the end of a
process as one of many RayErrors, whose text is a page. `unwrapped` makes one of ours of either;
raise it `from` Ray's, so that error.log has the whole.
"""

import re
from collections.abc import Awaitable
from typing import TypeVar

from ray.exceptions import (
    ActorDiedError,
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)

from services.errors import (
    CAUSE_CHARACTERS,
    PairloopError,
    WorkerDiedError,
    WorkerError,
    one_line,
    shortened,
)
from services.out_of_memory import GIB, Usage, out_of_memory

T = TypeVar("T")

GO_ON = "the same command goes on where it stood"
_ENDS = (RayActorError, WorkerCrashedError, NodeDiedError)
_LOW_ON_MEMORY = "running low on memory"
_REASONS = (
    ("killed by `ray.kill`", "it was ended by ray.kill"),
    ("node has died", "its machine was lost"),
    ("NodeDied", "its machine was lost"),
)
_KILLED = "its process was killed or crashed"
"""All that Ray knows of a signal: it sees the connection end."""


def unwrapped(error: BaseException, who: str) -> PairloopError:
    """The error of `who` (such as "rollout-0") as one of ours, in one line.

    One of ours comes out as it was raised. The end of its process is a WorkerDiedError, or an
    errors.OutOfMemoryError when Ray ended it for lack of memory; anything else a WorkerError.
    """
    inner = error
    while isinstance(inner, RayTaskError) and isinstance(inner.cause, BaseException):
        inner = inner.cause
    if isinstance(inner, PairloopError):
        return inner
    # Inside a RayTaskError such an error is somebody else's end, which `who` only met.
    if inner is error and isinstance(inner, OutOfMemoryError | RayActorError):
        if _LOW_ON_MEMORY in str(inner):
            return _memory_monitor(who, str(inner))
        if isinstance(inner, ActorDiedError) and inner.actor_init_failed:
            return WorkerError(f"{who} did not start: {_last_line(inner)}")
    if inner is error and isinstance(inner, _ENDS):
        reason = next((reason for sign, reason in _REASONS if sign in str(inner)), _KILLED)
        return WorkerDiedError(f"{who} died: {reason}; {GO_ON}")
    return WorkerError(f"{who}: {one_line(inner)}")


async def answered(call: Awaitable[T], who: str) -> T:
    """What a remote call returns; what it raises is unwrapped."""
    try:
        return await call
    except RayError as error:
        raise unwrapped(error, who) from error


def _memory_monitor(who: str, text: str) -> PairloopError:
    """Ray's memory monitor says how large the machine is and lists its largest processes."""
    limit = re.search(r"/ ([\d.]+) ?GB limit", text)
    top = re.search(r"memory users:[^\n]*\n\d+\t([\d.]+)\t([^\n]+)", text)
    largest = Usage(top[2].strip(), int(float(top[1]) * GIB)) if top else None
    return out_of_memory(who, largest, float(limit[1]) * GIB if limit else 0.0)


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return shortened(lines[-1] if lines else type(error).__name__, CAUSE_CHARACTERS)
