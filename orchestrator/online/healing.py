"""A part that dies or hangs is replaced, within a budget of restarts.

The poisoned prompt that ends its worker costs its own tries (`queues.max_deaths`), so it is gone
before the budget is.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, Protocol, TypeVar

from orchestrator.online.settings import RestartSettings
from orchestrator.online.supervision import heartbeat
from services.errors import PairloopError, ReplacedError, StallError, WorkerDiedError, WorkerError
from services.ray_errors import GO_ON

T = TypeVar("T")
_LONGEST_BACKOFF_S = 60.0


class Budget:
    """How often each part may be replaced."""

    def __init__(
        self,
        settings: RestartSettings,
        stage: str,
        warn: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        replaced: Callable[[str], None] = lambda name: None,
    ) -> None:
        """`replaced` is told the name of each part that will be, `warn` why."""
        self._settings, self._stage, self._warn = settings, stage, warn
        self._clock, self._sleep, self._replaced = clock, sleep, replaced
        self._ends: dict[str, list[float]] = {}

    def silence_s(self) -> float:
        """Without an answer for so many seconds a part hangs."""
        return self._settings.silence_s

    @property
    def tolerates(self) -> bool:
        """Whether a run may go on at all after an end."""
        return self._settings.count > 0

    @property
    def drain_s(self) -> float:
        """Seconds that a part which leaves has for what is in flight."""
        return self._settings.drain_s

    def backoff_s(self, times: int) -> float:
        """Seconds to wait after so many ends before."""
        return min(_LONGEST_BACKOFF_S, self._settings.backoff_s * 2.0 ** min(times, 32))

    async def spend(self, name: str, error: PairloopError) -> None:
        """`error` ended a part: wait, then it may be replaced. Raises when it ended too often."""
        settings, now = self._settings, self._clock()
        recent = [at for at in self._ends.get(name, []) if now - at < settings.within_s]
        self._ends[name] = [*recent, now]
        if len(recent) >= settings.count:
            if not recent:
                raise error
            raise WorkerError(
                f"{name} was replaced {len(recent)} times within {settings.within_s:g} s"
                f" (restarts.count) and ended again: {error}"
            ) from error
        cause = str(error).removeprefix(f"{self._stage}: ").removesuffix(f"; {GO_ON}")
        self._warn(f"{cause}; it is replaced")
        self._replaced(name)
        await self._sleep(self.backoff_s(len(recent)))


def replaceable(error: PairloopError) -> bool:
    """Whether it tells of a process that died, hung or broke, which a new one mends.

    Not a lack of memory: the next would meet it again, and the message says what to lower.
    """
    return isinstance(error, WorkerError | StallError) and not isinstance(error, ReplacedError)


async def kept(
    name: str,
    work: Callable[[], Awaitable[Any]],
    replace: Callable[[], Awaitable[None]],
    budget: Budget,
    whole: bool = True,
) -> NoReturn:
    """`work` for ever; what ends it is replaced first. Raises what is not to be mended so.

    With `whole=False` it is replaced before it works at all.
    """
    while True:
        try:
            if not whole:
                await replace()
                whole = True
            await work()
            raise WorkerError(f"{name} ended before the run did; {GO_ON}")
        except PairloopError as error:
            if not replaceable(error):
                raise
            whole = False
            await budget.spend(name, error)


async def restarted(name: str, start: Callable[[], Awaitable[T]], budget: Budget) -> T:
    """What a job returns that goes on by itself where it stood; begun again when it dies."""
    while True:
        try:
            return await start()
        except WorkerDiedError as error:
            await budget.spend(name, error)


class Reborn(Protocol):
    """A part that is started again under the handle that others hold: services/restarting.py."""

    @property
    def name(self) -> str:
        """As errors have it."""

    async def ping(self) -> str:
        """Which process answers; "" for one that does not work yet."""

    async def revive(self) -> None:
        """Until it works again."""


async def reborn(part: Reborn, budget: Budget) -> NoReturn:
    """See to it that such a part works, for ever. Raises when it ended or hung too often."""

    async def beat() -> None:
        born = await part.ping()

        async def ping() -> None:
            if not born or await part.ping() != born:
                raise WorkerDiedError(f"{part.name} died: its process was killed or crashed")

        await heartbeat(part.name, ping, budget.silence_s)

    await kept(part.name, beat, part.revive, budget)


async def first_end(*parts: Awaitable[Any]) -> None:
    """Until one of these ends; raises what it raised. The others are cancelled."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
