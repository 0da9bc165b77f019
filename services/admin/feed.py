"""Runs and episodes as they change, for any number of watches at the cost of one.

One look at all that is watched, some times a second, whoever watches. A watch is told the newest of
what changed since it last took something, so a slow reader misses what lay in between, and nothing
is kept for it.
"""

import asyncio
import contextlib
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from pairloop.admin.v1.admin_pb2 import Episode, Run, WatchResponse
from services.admin.ports import Runs
from services.errors import PairloopError, ResourceError, StateError
from services.states import LIVE, OVER, state_of

_LOOK_S = 0.25
_WHOLE_S = 5.0
"""Episodes that are over are looked at again so often: a Redis may fall back."""
MOST = 2000
"""Watches of one server."""
_Key = tuple[str, int]
"""Of a run's episode; 0: the run itself."""


@dataclass
class _Known:
    number: int
    """Of the change."""
    message: Run | Episode


@dataclass
class _OfRun:
    """How far a run's episodes are known."""

    going: int = 1
    """The first that is not over."""
    looked_whole: float = float("-inf")


@dataclass
class Feed:
    """Of one server; looks only while somebody watches."""

    runs: Runs
    ended: asyncio.Event
    """Set when the server stops: every watch ends after what it has."""
    _name: str = field(default_factory=lambda: secrets.token_hex(4))
    """Of this server's numbering: a position of another one tells nothing here."""
    _number: int = 0
    _known: dict[_Key, _Known] = field(default_factory=dict)
    _of_runs: dict[str, _OfRun] = field(default_factory=dict)
    _watched: Counter[str] = field(default_factory=Counter)
    _looking: "asyncio.Task[None] | None" = None
    _looked: asyncio.Condition = field(default_factory=asyncio.Condition)
    _looks: int = 0
    _failed: PairloopError | None = None

    async def changes(self, run: str, position: str) -> AsyncIterator[WatchResponse]:
        """What changed since a position, then what changes. `run`: its id, "" for every run.

        Raises ResourceError when too many watch, what a look raises.
        """
        if self._watched.total() >= MOST:
            raise ResourceError(f"{MOST} watches are open, which is the most; close some")
        self._watched[run] += 1
        try:
            if self._looking is None or self._looking.done():
                self._failed = None
                self._looking = asyncio.create_task(self._look_on())
                self._looking.add_done_callback(lambda _: asyncio.ensure_future(self._told()))
            seen = self._since(position)
            # A look that began before this watch did may not have its run.
            await self._looks_until(self._looks + 2)
            while True:
                if self._failed is not None:
                    raise self._failed
                for known in self._after(run, seen):
                    seen = known.number
                    yield self._response(known)
                if self._looking.done():
                    return
                await self._looks_until(self._looks + 1)
        finally:
            self._watched[run] -= 1

    async def _looks_until(self, count: int) -> None:
        """Return once so many looks were taken, or none comes any more."""
        looking = self._looking
        async with self._looked:
            await self._looked.wait_for(
                lambda: self._looks >= count or looking is None or looking.done()
            )

    async def close(self) -> None:
        """No watch is open any more."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})

    def _after(self, run: str, seen: int) -> list[_Known]:
        """What is newer, in the order it was seen to change."""
        found = [
            known
            for (of, _), known in self._known.items()
            if known.number > seen and run in ("", of)
        ]
        return sorted(found, key=lambda known: known.number)

    def _since(self, position: str) -> int:
        name, _, number = position.partition(".")
        return int(number) if name == self._name and number.isdecimal() else 0

    def _response(self, known: _Known) -> WatchResponse:
        position, message = f"{self._name}.{known.number}", known.message
        if isinstance(message, Run):
            return WatchResponse(position=position, run=message)
        return WatchResponse(position=position, episode=message)

    async def _look_on(self) -> None:
        """While somebody watches; once more when the server ends."""
        last = False
        while +self._watched and not last:
            last = self.ended.is_set()
            try:
                await self._look()
                self._failed = None
            except PairloopError as error:
                self._failed = error
            await self._told()
            if not last:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_S):
                        await self.ended.wait()

    async def _told(self) -> None:
        async with self._looked:
            self._looks += 1
            self._looked.notify_all()

    async def _look(self) -> None:
        every = self._watched[""] > 0
        runs = await self.runs.list()
        for run in runs:
            if not every and not self._watched[run.id]:
                continue
            self._see((run.id, 0), run)
            if run.episodes and (run.state in LIVE or self._watched[run.id]):
                with contextlib.suppress(StateError):  # its online stage has only just begun
                    await self._look_at(run)
        gone = {of for of, _ in self._known} - {run.id for run in runs}
        self._known = {key: known for key, known in self._known.items() if key[0] not in gone}

    async def _look_at(self, run: Run) -> None:
        now = asyncio.get_running_loop().time()
        of = self._of_runs.setdefault(run.id, _OfRun())
        whole = now - of.looked_whole >= _WHOLE_S
        first = 1 if whole else of.going
        episodes = await (await self.runs.episodes(run)).list(first)
        for episode in episodes:
            self._see((run.id, episode.number), episode)
        going = (each.number for each in episodes if state_of(each) not in OVER)
        of.going = next(going, first + len(episodes))
        if whole:
            of.looked_whole = now

    def _see(self, key: _Key, message: Run | Episode) -> None:
        known = self._known.get(key)
        if known is not None and _same(known.message, message):
            return
        self._number += 1
        copy = type(message)()
        copy.CopyFrom(message)  # type: ignore[arg-type]  # of its own kind
        self._known[key] = _Known(self._number, copy)


def _same(one: Run | Episode, other: Run | Episode) -> bool:
    """But for when a run was last heard of, which is no change while it goes on."""
    if isinstance(one, Run) and isinstance(other, Run):
        first, second = Run(), Run()
        first.CopyFrom(one)
        second.CopyFrom(other)
        first.ClearField("heard")
        second.ClearField("heard")
        return first == second
    return one == other
