"""A write for which the disk has no room is made again until it has, and says so."""

import errno
import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_delay,
    wait_fixed,
)

from services.errors import ResourceError

T = TypeVar("T")

PATIENCE_S = 300.0
AGAIN_S = 2.0
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_full(error: BaseException) -> bool:
    """Whether a write was refused for lack of room."""
    if isinstance(error, OSError):
        return error.errno in _FULL
    # safetensors has the number of the system's error in its text alone. Known by its name, as
    # those who keep no tensors need not import it.
    named = type(error).__name__ == "SafetensorError"
    found = re.search(r"os error (\d+)", str(error)) if named else None
    return found is not None and int(found[1]) in _FULL


def when_there_is_room(
    write: Callable[[], T],
    whose: str,
    tell: Callable[[str], None],
    patience_s: float = PATIENCE_S,
    again_s: float = AGAIN_S,
) -> T:
    """What `write` returns, which leaves nothing half done when it raises.

    `whose` disk it is, such as "the learner's". `tell` hears once of a disk that is full. Raises
    ResourceError after `patience_s` of that.
    """
    return Retrying(**_tries(whose, tell, patience_s, again_s))(write)


async def awaited_room(
    write: Callable[[], Awaitable[T]],
    whose: str,
    tell: Callable[[str], None],
    patience_s: float = PATIENCE_S,
    again_s: float = AGAIN_S,
) -> T:
    """As `when_there_is_room`, for what others must not wait for."""
    return await AsyncRetrying(**_tries(whose, tell, patience_s, again_s))(write)


def _tries(
    whose: str, tell: Callable[[str], None], patience_s: float, again_s: float
) -> dict[str, Any]:
    def said(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if state.attempt_number == 1:
            tell(f"{whose} disk is full ({error}); it waits for room")

    def spent(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        raise ResourceError(
            f"no room on {whose} disk for {patience_s:g} s ({error}); free some, then the same"
            " command goes on"
        ) from error

    return {
        "retry": retry_if_exception(is_full),
        "stop": stop_after_delay(patience_s),
        "wait": wait_fixed(again_s),
        "before_sleep": said,
        "retry_error_callback": spent,
    }
