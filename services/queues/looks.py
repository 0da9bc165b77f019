"""When a consumer looks for what others left: not each time that it takes.

What somebody failed or gave back is seen by every look that does not wait (lua/take.lua). What
nobody renews any more, and what this consumer's name holds beside what it knows of, is a walk
over all that is in work: it is asked for at first, then once a second.
"""

import time

from services.queues.items import StreamName

_EVERY_S = 1.0


class Looks:
    """Of the consumers of one connection."""

    def __init__(self, lease_s: float) -> None:
        self._every_s = min(_EVERY_S, lease_s)
        self._next: dict[tuple[StreamName, str], float] = {}

    def due(self, stream: StreamName, consumer: str) -> bool:
        """Whether it should look now."""
        return time.monotonic() >= self._next.get((stream, consumer), 0.0)

    def looked(self, stream: StreamName, consumer: str, found: int) -> None:
        """It did; where there was something there may be more."""
        later = 0.0 if found else self._every_s
        self._next[stream, consumer] = time.monotonic() + later
