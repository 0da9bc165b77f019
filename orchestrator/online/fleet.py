"""The workers of one kind, as many as are wanted: they join and leave while the run goes on.

    opened -> connected -> (an engine: newest version attested) -> works -> drained -> gone

Each has a place (slots.py), in which its process is replaced when it ends. A place whose budget is
spent, or for which there is no room any more, as where a machine was lost, is given up while others
work, and a new one is opened in its stead, again and again. One that was asked for and does not
come up is wanted no more.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, Protocol, TypeVar

from orchestrator.online.healing import Budget, first_end, replaceable
from orchestrator.online.slots import GiveBack
from pairloop.admin.v1.admin_pb2 import (
    WORKER_STATE_DRAINING,
    WORKER_STATE_STARTING,
    WORKER_STATE_WORKING,
    Worker,
    WorkerKind,
)
from services.errors import (
    OutOfMemoryError,
    PairloopError,
    ResourceError,
    StateError,
    WorkerDiedError,
)
from services.telemetry.format import duration


class Place(Protocol):
    """A slot, as far as a fleet is concerned."""

    settled: asyncio.Event

    @property
    def name(self) -> str:
        """Of this place alone."""

    @property
    def works(self) -> bool:
        """Whether it takes items."""

    @property
    def version(self) -> int | None:
        """Of the weights that it works with."""

    @property
    def restarts(self) -> int:
        """How often its process was replaced."""

    async def start(self) -> None:
        """Connect the first process."""

    async def leave(self, queues: GiveBack, within_s: float) -> int:
        """Finish and end; how many items are handed back."""

    async def end(self, queues: GiveBack, died: bool) -> int:
        """End now; how many items are handed back."""


S = TypeVar("S", bound=Place)


@dataclass(eq=False)
class _Member(Generic[S]):
    name: str
    slot: S | None = None
    """None until its first process is up."""
    joining: bool = False
    """Opened by the fleet, and has not worked yet."""
    again: int = 0
    """It is in the stead of one that was given up, the so-manieth in a row."""
    leaving: bool = False
    task: "asyncio.Task[Any] | None" = None
    """Its life, or its leave."""


@dataclass(frozen=True)
class Words:
    """How a fleet tells of itself."""

    kind: WorkerKind
    prefix: str
    """Of the names, before "-0"."""
    items: str
    """What is handed back."""
    say: Callable[[str], None]
    warn: Callable[[str], None]


class Fleet(Generic[S]):
    """Each of its places does the same work."""

    def __init__(
        self, wanted: int, opened: Callable[[str], Awaitable[S]], words: Words, budget: Budget
    ) -> None:
        """`opened`: a place of this name, its first process up and not connected."""
        self._wanted, self._opened = wanted, opened
        self._words, self._budget = words, budget
        self._members: list[_Member[S]] = []
        self._former: list[S] = []
        self._next = 0
        self._changed = asyncio.Event()
        self._over = False
        self._kept_by: tuple[GiveBack, Callable[[S], Awaitable[NoReturn]]] | None = None
        """What `keep` was given, while it runs."""

    @property
    def slots(self) -> Sequence[S]:
        """Every place that has a process, those that leave too."""
        return [member.slot for member in self._members if member.slot is not None]

    @property
    def all_slots(self) -> Sequence[S]:
        """These, and those that left."""
        return [*self._former, *self.slots]

    @property
    def over(self) -> bool:
        """Whether it was kept, and is no more."""
        return self._over

    @property
    def wanted(self) -> int:
        """How many places it has, or is about to have."""
        return self._wanted

    def add(self, slot: S) -> None:
        """One that was there before the run went on."""
        self._members.append(_Member(slot.name, slot))
        self._next = max(self._next, int(slot.name.rpartition("-")[2]) + 1)

    def scale(self, count: int) -> int:
        """Want so many from now on, 1 or more; how many more those are than before."""
        more = count - self._wanted
        self._wanted = count
        self._level()
        self._changed.set()
        return more

    def drain(self, name: str) -> bool:
        """Let this one leave, and another be opened in its stead; whether it is there.

        Raises StateError for the only one that works: nobody would until the other does.
        """
        found = [member for member in self._members if member.name == name]
        if not found or self._kept_by is None:
            return False
        if not found[0].leaving:
            others = (m for m in self._members if m is not found[0] and not m.leaving)
            if not any(member.slot and member.slot.works for member in others):
                raise StateError(f"no other worker of its kind works beside {name}; scale up first")
            self._dismiss(found[0], self._kept_by[0])
            self._level()
            self._changed.set()
        return True

    def workers(self) -> list[Worker]:
        """Each, as it is now."""
        return [self._shown(member) for member in self._members]

    async def keep(self, queues: GiveBack, work: Callable[[S], Awaitable[NoReturn]]) -> NoReturn:
        """Have as many as are wanted, for ever. Raises what ended a place, if none else works.

        `work`: of one place, which is started; raises what a new process in it does not mend.
        """
        self._kept_by = queues, work
        try:
            while True:
                self._changed.clear()
                self._level()
                changed = asyncio.ensure_future(self._changed.wait())
                tasks = {member.task for member in self._members if member.task}
                await asyncio.wait({changed, *tasks}, return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
                for member in [m for m in self._members if m.task and m.task.done()]:
                    self._ended(member, queues)
        finally:
            self._over, self._kept_by = True, None
            left = [member.task for member in self._members if member.task]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    def _level(self) -> None:
        if self._kept_by is None:
            return
        queues, work = self._kept_by
        present = [member for member in self._members if not member.leaving]
        while len(present) > self._wanted:
            # The newest; before it one that does not work at the moment.
            idle = (m for m in reversed(present) if not (m.slot and m.slot.works))
            member = next(idle, present[-1])
            present.remove(member)
            self._dismiss(member, queues)
        while len(present) < self._wanted:
            present.append(self._open())
        for member in present:
            member.task = member.task or asyncio.create_task(self._live(member, work))

    def _dismiss(self, member: _Member[S], queues: GiveBack) -> None:
        member.leaving = True
        member.task = asyncio.create_task(self._leave(member, member.task, queues))

    def _open(self, name: str = "", again: int = 0) -> _Member[S]:
        if not name:
            name, self._next = f"{self._words.prefix}-{self._next}", self._next + 1
        member: _Member[S] = _Member(name, joining=True, again=again)
        self._members.append(member)
        return member

    async def _live(self, member: _Member[S], work: Callable[[S], Awaitable[NoReturn]]) -> NoReturn:
        if member.again:
            await asyncio.sleep(self._budget.backoff_s(member.again - 1))
        began = time.monotonic()
        if member.slot is None:
            member.slot = await self._opened(member.name)
            with suppress(WorkerDiedError):  # it begins with a replacement then
                await member.slot.start()
        await first_end(work(member.slot), self._welcome(member, member.slot, began))
        raise AssertionError

    async def _welcome(self, member: _Member[S], slot: S, began: float) -> NoReturn:
        await slot.settled.wait()
        if member.joining:
            member.joining, member.again = False, 0
            version = "" if slot.version is None else f" with version {slot.version}"
            self._words.say(f"{slot.name} joined{version} after {duration(_since(began))}")
        await asyncio.Event().wait()
        raise AssertionError

    async def _leave(
        self, member: _Member[S], life: "asyncio.Task[Any] | None", queues: GiveBack
    ) -> None:
        if life is not None:
            life.cancel()
            await asyncio.wait({life})
        if member.slot is not None:
            given = await member.slot.leave(queues, self._budget.drain_s)
            self._words.say(f"{member.name} left, {given} {self._words.items} handed back")

    def _ended(self, member: _Member[S], queues: GiveBack) -> None:
        """A task of a member ended: its leave, or its life by an error."""
        assert member.task is not None  # noqa: S101 - it has ended
        error = None if member.task.cancelled() else member.task.exception()
        if member.leaving:
            self._members.remove(member)
            if member.slot is not None:
                self._former.append(member.slot)
            if error is not None:
                raise error
            return
        assert error is not None  # noqa: S101 - a life returns by an error alone
        rest = [m for m in self._members if m is not member and not m.leaving]
        working = sum(m.slot is not None and m.slot.settled.is_set() for m in rest)
        if not isinstance(error, PairloopError) or not (
            member.joining or (working and self._budget.tolerates and _place_is_lost(error))
        ):
            raise error
        told = f"{error}; the run goes on with {working} of this kind"
        if member.joining and not member.again:
            self._wanted = max(1, min(self._wanted, len(rest)))
            told += f", and {member.name} is wanted no more"
        else:
            # A name under which nothing was taken is as good as new.
            self._open("" if member.slot else member.name, member.again + 1)
            told += ", and looks for a place for one more"
        self._words.warn(told)
        member.leaving = True
        member.task = asyncio.create_task(_end(member.slot, queues))

    def _shown(self, member: _Member[S]) -> Worker:
        slot, state = member.slot, WORKER_STATE_STARTING
        if member.leaving:
            state = WORKER_STATE_DRAINING
        elif slot is not None and slot.works:
            state = WORKER_STATE_WORKING
        return Worker(
            name=member.name,
            kind=self._words.kind,
            state=state,
            weight_version=slot.version if slot else None,
            restarts=slot.restarts if slot else 0,
        )


async def _end(slot: Place | None, queues: GiveBack) -> None:
    if slot is not None:
        await slot.end(queues, died=True)


def _place_is_lost(error: PairloopError) -> bool:
    """Whether others may work where this one does not: it ended too often, or has no room."""
    room = isinstance(error, ResourceError) and not isinstance(error, OutOfMemoryError)
    return room or replaceable(error)


def _since(began: float) -> float:
    return time.monotonic() - began
