"""The first part of a run that ends ends the run, with its cause."""

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Any

from services.errors import PairloopError, WorkerError

_END_S = 15.0
"""How long parts may take to end once they are told to."""


async def supervise(main: Awaitable[None], parts: Mapping[str, Awaitable[Any]]) -> None:
    """Run `main` to its end while every part works; a part that ends first is a failure.

    Raises what `main` raised, or what the part raised: one of ours as it is, anything else as a
    WorkerError that names the part.
    """
    work = asyncio.ensure_future(main)
    named = {asyncio.ensure_future(part): name for name, part in parts.items()}
    try:
        await asyncio.wait({work, *named}, return_when=asyncio.FIRST_COMPLETED)
        for part, name in named.items():
            # Before `main`: when a part died, what `main` says of it is only a consequence.
            if part.done() and not part.cancelled():
                _raise(part, name)
        await work
    finally:
        for task in (work, *named):
            task.cancel()
        # A part that will not end must not hide the error that is on its way.
        done, _ = await asyncio.wait({work, *named}, timeout=_END_S)
        await asyncio.gather(*done, return_exceptions=True)


def _raise(part: "asyncio.Future[Any]", name: str) -> None:
    error = part.exception()
    if error is None:
        raise WorkerError(f"{name} ended before the run did")
    raise cause_of(error, name) from error


def cause_of(error: BaseException, name: str) -> PairloopError:
    """The error that a worker raised, out of what Ray wraps around it."""
    inner = getattr(error, "cause", None) or error
    if isinstance(inner, PairloopError):
        return inner
    text = " ".join(str(inner).split())[:400]
    return WorkerError(f"{name}: {type(inner).__name__}: {text}")
