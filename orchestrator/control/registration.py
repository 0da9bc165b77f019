"""What a run says of itself in Redis: as long as it goes on, and once more as it ends."""

import asyncio
import contextlib
import getpass
import json
import os
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NoReturn

from orchestrator.artifacts.kept_id import kept_id
from orchestrator.control.live import WAITING, LiveRun, read
from pairloop.admin.v1 import admin_pb2 as messages
from services.errors import PairloopError, StateError, UnreachableError, Waiting, one_line
from services.queues.mailbox import Mailbox
from services.queues.registry import BEAT_S, Registry

_ANSWER_S = 5.0
_LOOK_S = 0.5
"""Between two looks at what is asked of the run."""
ID = ".id"
"""In the run's folder: another attempt at a run, from another machine too, is the same run."""


def own_run(name: str, job: str, folder: Path) -> messages.Run:
    """This attempt at a run. Whoever knows more of it fills it in: stage, address, episodes."""
    run = messages.Run(
        id=f"{name}-{kept_id(folder / ID, 6)}",
        name=name,
        job=job,
        state=messages.RUN_STATE_RUNNING,
        folder=str(folder.resolve()),
        host=socket.gethostname(),
        pid=os.getpid(),
        user=user_name(),
    )
    run.started.GetCurrentTime()
    return run


def user_name() -> str:
    """Of this process; in a container it may have a number alone."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


async def keep(live: LiveRun, url: str, warn: Callable[[str], None]) -> NoReturn:
    """Say so every few seconds, and do what is asked of it; `warn` is told once when Redis does
    not answer."""
    registry: Registry | None = None
    warned = False
    try:
        while True:
            try:
                if registry is None:
                    registry = await Registry.open(url, _ANSWER_S)
                    await registry.forget_old()
                await registry.say(live.said())
                await _answer_for(BEAT_S, registry.mailbox(), live)
            except UnreachableError as error:
                if not warned:
                    warn(f"this run is not listed among those of its Redis: {error}")
                warned = True
                await asyncio.sleep(BEAT_S)
    finally:
        if registry is not None:
            with contextlib.suppress(UnreachableError, TimeoutError):
                await asyncio.wait_for(registry.say(live.said()), _ANSWER_S)
            await registry.close()


async def _answer_for(seconds: float, mailbox: Mailbox, live: LiveRun) -> None:
    """What comes in these seconds, one after the other, and what was left before."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while loop.time() < until:
        letter = await mailbox.first(live.own.id)
        if letter is None:
            await asyncio.sleep(_LOOK_S)
            continue
        try:
            asked = read(letter.text)
            if asked.method not in WAITING and asked.change.time.ToMicroseconds() < _begun(live):
                raise StateError("the run ended before it heard of this; ask again")
            answer = {"note": await live.carry_out(asked)}
        except PairloopError as error:
            answer = {"error": str(error)}
        await mailbox.answer(live.own.id, letter.request_id, json.dumps(answer))


def _begun(live: LiveRun) -> int:
    return live.own.started.ToMicroseconds()


@contextlib.asynccontextmanager
async def listed(
    live: LiveRun, url: str | None, warn: Callable[[str], None]
) -> AsyncIterator[None]:
    """While this lasts, and then as what it ended. Without an address nobody hears it."""
    run = live.own
    keeping = asyncio.ensure_future(keep(live, url, warn)) if url else None
    try:
        yield
        run.state = messages.RUN_STATE_COMPLETED
    except Waiting:
        run.state = messages.RUN_STATE_WAITING
        raise
    except Exception as error:
        run.state, run.error = messages.RUN_STATE_FAILED, one_line(error, 300)
        raise
    except BaseException:
        run.state = messages.RUN_STATE_STOPPED
        raise
    finally:
        run.address = ""
        live.idle()
        if keeping is not None:
            keeping.cancel()
            await asyncio.wait({keeping})
