"""The admin server of all runs of a Redis, as a process of its own."""

import asyncio
import signal
import sys

from orchestrator.control.runs import RedisRuns
from services.access.tokens import Access, is_loopback
from services.admin.server import AdminServer
from services.admin.settings import AdminSettings
from services.queues.endpoint import endpoint_of

_ANSWER_S = 5.0


def serve(settings: AdminSettings, url: str) -> None:
    """Until SIGTERM or Ctrl-C. Raises UnreachableError when Redis does not answer or the port is
    taken, ConfigError when the address or a file is wrong."""
    asyncio.run(_serve(settings, url))


async def _serve(settings: AdminSettings, url: str) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    runs, server = await RedisRuns.open(url, _ANSWER_S), AdminServer()
    try:
        address = await server.start(settings, runs)
        for text in doubts(settings):
            sys.stderr.write(f"pairloop: {text}\n")
        how = "TLS" if settings.tls_cert else "no TLS"
        sys.stdout.write(
            f"admin API of all runs of {endpoint_of(url).shown} at {address} ({how})\n"
        )
        if server.console_url:
            sys.stdout.write(f"console at {server.console_url}\n")
        sys.stdout.flush()
        await ended.wait()
    finally:
        await server.stop()
        await runs.close()


def doubts(settings: AdminSettings) -> list[str]:
    """What is legal in these settings, and lets strangers in or listen."""
    if is_loopback(settings.host):
        return []
    found = []
    if not Access.configured(settings.tokens).asked:
        found.append(
            f"{settings.host} is no loopback address and no token is asked for: whoever reaches it"
            " can pause and end runs; set tokens"
        )
    if settings.tls_cert is None:
        found.append(
            f"{settings.host} is no loopback address and there is no TLS: who listens on the"
            " network reads tokens; set tls_cert and tls_key, or let a proxy do it"
        )
    return found
