"""Every part of a run is watched; the first failure ends the run, with its cause."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar, overload

from services.errors import (
    OutOfMemoryError,
    PairloopError,
    StallError,
    UnreachableError,
    WorkerDiedError,
    WorkerError,
)
from services.ray_errors import GO_ON, answered, unwrapped

S = TypeVar("S")
T = TypeVar("T")

EVERY_S = 2.0
"""Between two pings of a part: bounds how late a death is seen that no pending call tells of."""
_CONSEQUENCE_S = 1.5 * EVERY_S
_END_S = 15.0
"""How long parts may take to end once they are told to."""
_DEATHS = (WorkerDiedError, OutOfMemoryError)
_CONSEQUENCES = (WorkerError, UnreachableError)
"""What those say who needed a part that died."""


async def supervise(
    main: Awaitable[T],
    parts: Mapping[str, Awaitable[Any]],
    patience_s: float = _CONSEQUENCE_S,
) -> T:
    """What `main` returns, run while every part works; a part that ends first is a failure.

    Raises what `main` raised, or what the part raised as one of ours. When a process dies, whoever
    needs it fails too, maybe sooner: such a failure waits `patience_s` for the death, which is
    what is raised then.
    """
    tasks: dict[asyncio.Future[Any], str] = {
        asyncio.ensure_future(part): name for name, part in parts.items()
    }
    work = asyncio.ensure_future(main)
    tasks[work] = ""
    try:
        await asyncio.wait(list(tasks), return_when=asyncio.FIRST_COMPLETED)
        error = _failure(tasks, work)
        if error is not None:
            raise await _death_behind(error, tasks, work, patience_s)
        return work.result()
    finally:
        for task in tasks:
            task.cancel()
        # A part that will not end must not hide the error that is on its way.
        done, _ = await asyncio.wait(list(tasks), timeout=_END_S)
        await asyncio.gather(*done, return_exceptions=True)


async def heartbeat(
    name: str,
    ping: Callable[[], Awaitable[Any]],
    silence_s: Callable[[], float],
    every_s: float = EVERY_S,
) -> NoReturn:
    """Ping a part every `every_s`, for ever. StallError when it does not answer in `silence_s`.

    What the ping raises is unwrapped: the end of the part's process is a WorkerDiedError. Silence
    is counted in periods that this process lived through, so a run that was suspended as a whole
    takes nobody for dead when it wakes up; and anew when the limit changes, as what the part does.
    """
    while True:
        answer = asyncio.ensure_future(answered(ping(), name))
        try:
            quiet, limit = 0.0, silence_s()
            while not (await asyncio.wait({answer}, timeout=every_s))[0]:
                quiet = quiet + every_s if silence_s() == limit else 0.0
                limit = silence_s()
                if quiet >= limit:
                    raise StallError(f"{name} did not answer for {limit:g} s; {GO_ON}")
            await answer
        finally:
            answer.cancel()
        await asyncio.sleep(every_s)


@overload
async def together(one: Awaitable[S], other: Awaitable[T], /) -> tuple[S, T]: ...
@overload
async def together(*all_: Awaitable[T]) -> Sequence[T]: ...
async def together(*all_: Awaitable[Any]) -> Sequence[Any]:
    """What each returns, in order. The first that fails ends the others, then is raised."""
    tasks = [asyncio.ensure_future(each) for each in all_]
    try:
        return tuple(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


Tasks = Mapping["asyncio.Future[Any]", str]


def _failure(tasks: Tasks, work: "asyncio.Future[Any]") -> BaseException | None:
    """What a part failed with, else what `work` failed with, deaths before all others.

    A part goes before `work`: what `work` says of a part that failed is only a consequence.
    """
    found: list[BaseException | None] = [
        error for task, name in tasks.items() if (error := _error_of(task, name, work))
    ]
    deaths: list[BaseException | None] = [error for error in found if isinstance(error, _DEATHS)]
    return (deaths or found or [None])[0]


def _error_of(
    task: "asyncio.Future[Any]", name: str, work: "asyncio.Future[Any]"
) -> BaseException | None:
    if not task.done():
        return None
    error = asyncio.CancelledError() if task.cancelled() else task.exception()
    if task is not work and (error is None or task.cancelled()):
        return WorkerError(f"{name} ended before the run did; {GO_ON}")
    if error is None:
        return None
    if isinstance(error, PairloopError) or task is work:
        return error
    known = unwrapped(error, name)
    known.__cause__ = error
    return known


async def _death_behind(
    error: BaseException, tasks: Tasks, work: "asyncio.Future[Any]", patience_s: float
) -> BaseException:
    """The death of a part that `error` is the consequence of, if one shows soon; else `error`."""
    deadline = asyncio.get_running_loop().time() + patience_s
    found: BaseException | None = error
    while isinstance(found, _CONSEQUENCES) and not isinstance(found, _DEATHS):
        pending = [task for task in tasks if not task.done()]
        left = deadline - asyncio.get_running_loop().time()
        if not pending or left <= 0:
            break
        await asyncio.wait(pending, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        found = _failure(tasks, work)
    return found if isinstance(found, _DEATHS) else error
