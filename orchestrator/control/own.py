"""The admin API in a run's own process: the whole run long, whatever its stage."""

import contextlib
from collections.abc import AsyncIterator, Callable

from orchestrator.control.live import LiveRun
from orchestrator.control.runs import RedisRuns
from services.admin.server import AdminServer
from services.admin.settings import AdminSettings
from services.errors import UnreachableError

_ANSWER_S = 5.0


@contextlib.asynccontextmanager
async def served(
    live: LiveRun, settings: AdminSettings, url: str | None, warn: Callable[[str], None]
) -> AsyncIterator[None]:
    """While this lasts; `live` has its address.

    Raises UnreachableError when a port that was asked for is taken, ConfigError when a file of
    tokens or TLS is wrong. Where the Redis of all runs does not answer, this run alone is known.
    """
    try:
        runs = await RedisRuns.open(url, _ANSWER_S, live)
    except UnreachableError as error:
        warn(f"the admin API knows this run alone: {error}")
        runs = await RedisRuns.open(None, _ANSWER_S, live)
    server = AdminServer(live.called)
    try:
        live.own.address = await server.start(settings, runs)
        page = f"; console {server.console_url}" if server.console_url else ""
        live.hold.say(f"admin API at {live.own.address}{page}")
        yield
    finally:
        await server.stop()
        await runs.close()
