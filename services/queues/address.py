"""Which Redis a run uses."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from services.queues.client import look
from services.queues.embedded import EmbeddedRedis
from services.queues.settings import QueueSettings

_LOOK_S = 0.5


@dataclass(frozen=True)
class RunRedis:
    """The server of a run."""

    url: str
    """May hold a password: never to be logged."""
    embedded: EmbeddedRedis | None = None

    async def doubts(self, timeout_s: float) -> list[str]:
        """What to warn of, a line each: a server that forgets, or does not say whether it does."""
        return [] if self.embedded is not None else await look(self.url, timeout_s)

    async def keep_up(self, tell: Callable[[str], None]) -> NoReturn:
        """Start the embedded server again whenever it ends; another one is its operator's.

        Raises UnreachableError when it does not start.
        """
        while True:
            await asyncio.sleep(_LOOK_S)
            if self.embedded is not None and not self.embedded.alive:
                tell("the embedded Redis ended; it is started again on its data")
                await asyncio.to_thread(self.embedded.revive)


@contextmanager
def redis_of_run(settings: QueueSettings, folder: Path | str) -> Iterator[RunRedis]:
    """`queues.url`, or REDIS_URL, or an embedded server on `folder` for the while.

    Raises UnreachableError when the embedded server does not come up.
    """
    url = settings.configured_url
    if url:
        yield RunRedis(url)
        return
    server = EmbeddedRedis.start(folder, settings.fsync)
    try:
        yield RunRedis(server.url, server)
    finally:
        server.stop()
