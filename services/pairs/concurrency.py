"""How many groups a reward is asked for at once: fewer when it falls behind, more when it keeps up.

A deadline counts what a request waits for at the reward as well. So where requests pass theirs, the
reward is not ill but behind: half as many are asked at once (additive increase, multiplicative
decrease, as TCP has it: Jacobson 1988), down to one, whose time is the reward's own.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from services.errors import SlowError

T = TypeVar("T")


class Concurrency:
    """Shared by the groups of one worker."""

    def __init__(self, most: int) -> None:
        self.allowed = float(most)
        """At once; at least 1."""
        self._most, self._running, self._shrinks = most, 0, 0
        self._freed = asyncio.Condition()

    async def ask(self, call: Callable[[], Awaitable[T]]) -> T:
        """What `call` returns, asked again with fewer beside it while it passes its deadline.

        Raises SlowError when it did so alone.
        """
        while True:
            async with self._freed:
                await self._freed.wait_for(lambda: self._running < int(self.allowed))
                self._running += 1
                before, beside = self._shrinks, int(self.allowed)
            try:
                answer = await call()
                self.allowed = min(float(self._most), self.allowed + 1.0 / self.allowed)
                return answer
            except SlowError:
                if beside == 1:
                    raise
                if before == self._shrinks:  # not once more for each that was asked with it
                    self.allowed, self._shrinks = max(1.0, self.allowed / 2), before + 1
            finally:
                async with self._freed:
                    self._running -= 1
                    self._freed.notify_all()
