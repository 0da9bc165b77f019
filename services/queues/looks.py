"""When a consumer looks for what others left: not each time that it takes.

What somebody failed or gave back is seen by every look that does not wait (lua/take.lua). What
nobody renews any more, and what this consumer's name holds beside what it knows of, is a walk
over all that is in work: it is asked for at first, then after a second, and the longer there was
none the more seldom, so that hundreds who wait do not keep the server busy.
"""

import time
from collections.abc import Callable

from services.queues.items import StreamName

_FIRST_S = 1.0
_MOST_S = 5.0


class Looks:
    """Of the consumers of one connection."""

    def __init__(self, lease_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first_s, self._most_s = min(_FIRST_S, lease_s), min(_MOST_S, lease_s)
        self._next: dict[tuple[StreamName, str], float] = {}
        self._after: dict[tuple[StreamName, str], float] = {}

    def due(self, stream: StreamName, consumer: str) -> bool:
        """Whether it should look now."""
        return self._clock() >= self._next.get((stream, consumer), 0.0)

    def looked(self, stream: StreamName, consumer: str, found: int) -> None:
        """It did; where there was something there may be more."""
        key = stream, consumer
        if found:
            self._next[key] = self._after[key] = 0.0
            return
        self._after[key] = min(self._most_s, max(self._first_s, 2 * self._after.get(key, 0.0)))
        self._next[key] = self._clock() + self._after[key]

    def soon(self, stream: StreamName, consumer: str) -> None:
        """There will be something in a moment: it failed an item."""
        self.looked(stream, consumer, 1)
        self.looked(stream, consumer, 0)
