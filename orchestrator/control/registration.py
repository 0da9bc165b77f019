"""What a run says of itself in Redis: as long as it goes on, and once more as it ends."""

import asyncio
import contextlib
import getpass
import os
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NoReturn

from orchestrator.artifacts.kept_id import kept_id
from pairloop.admin.v1 import admin_pb2 as messages
from services.errors import UnreachableError, Waiting, one_line
from services.queues.registry import BEAT_S, Registry

_ANSWER_S = 5.0
_ID = ".id"
"""In the run's folder: another attempt at a run, from another machine too, is the same run."""


def own_run(name: str, job: str, folder: Path) -> messages.Run:
    """This attempt at a run. Whoever knows more of it fills it in: stage, address, episodes."""
    run = messages.Run(
        id=f"{name}-{kept_id(folder / _ID, 6)}",
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


async def keep(run: messages.Run, url: str, warn: Callable[[str], None]) -> NoReturn:
    """Say so every few seconds; `warn` is told once when Redis does not answer."""
    registry: Registry | None = None
    warned = False
    try:
        while True:
            try:
                if registry is None:
                    registry = await Registry.open(url, _ANSWER_S)
                    await registry.forget_old()
                await registry.say(run)
            except UnreachableError as error:
                if not warned:
                    warn(f"this run is not listed among those of its Redis: {error}")
                warned = True
            await asyncio.sleep(BEAT_S)
    finally:
        if registry is not None:
            with contextlib.suppress(UnreachableError, TimeoutError):
                await asyncio.wait_for(registry.say(run), _ANSWER_S)
            await registry.close()


@contextlib.asynccontextmanager
async def listed(
    run: messages.Run, url: str | None, warn: Callable[[str], None]
) -> AsyncIterator[None]:
    """While this lasts, and then as what it ended. Without an address nobody hears it."""
    keeping = asyncio.ensure_future(keep(run, url, warn)) if url else None
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
        if keeping is not None:
            keeping.cancel()
            await asyncio.wait({keeping})
