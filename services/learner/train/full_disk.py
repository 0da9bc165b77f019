"""A write for which the disk has no room is made again until it has, and says so."""

import errno
import re
from collections.abc import Callable
from typing import TypeVar

from safetensors import SafetensorError
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_delay, wait_fixed

from services.errors import ResourceError

T = TypeVar("T")

PATIENCE_S = 300.0
AGAIN_S = 2.0
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def when_there_is_room(
    write: Callable[[], T],
    tell: Callable[[str], None],
    patience_s: float = PATIENCE_S,
    again_s: float = AGAIN_S,
) -> T:
    """What `write` returns, which leaves nothing half done when it raises.

    `tell` hears once of a disk that is full. Raises ResourceError after `patience_s` of that.
    """

    def said(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if state.attempt_number == 1:
            tell(f"the learner's disk is full ({error}); it waits for room")

    tries = Retrying(
        retry=retry_if_exception(_is_full),
        stop=stop_after_delay(patience_s),
        wait=wait_fixed(again_s),
        before_sleep=said,
        reraise=True,
    )
    try:
        return tries(write)
    except (OSError, SafetensorError) as error:
        if not _is_full(error):
            raise
        raise ResourceError(
            f"the learner found no room on its disk for {patience_s:g} s ({error}); free some, then"
            " the same command goes on"
        ) from error


def _is_full(error: BaseException) -> bool:
    """safetensors has the number of the system's error in its text alone."""
    if isinstance(error, OSError):
        return error.errno in _FULL
    found = re.search(r"os error (\d+)", str(error)) if isinstance(error, SafetensorError) else None
    return found is not None and int(found[1]) in _FULL
