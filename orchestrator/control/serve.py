"""The admin server of all runs of a Redis, as a process of its own."""

import asyncio
import signal
import sys

from prometheus_client import CollectorRegistry, start_http_server

from orchestrator.control.runs import RedisRuns
from services.access.tokens import Access, is_loopback
from services.admin.server import AdminServer
from services.admin.settings import AdminSettings
from services.errors import UnreachableError
from services.queues.endpoint import endpoint_of
from services.telemetry.log.lines import json_line, last_line, log_format
from services.telemetry.metrics.api import ApiCalls

_ANSWER_S = 5.0


def serve(settings: AdminSettings, url: str, metrics_port: int | None = None) -> None:
    """Until SIGTERM or Ctrl-C; Prometheus scrapes how calls end at `metrics_port`.

    Raises UnreachableError when Redis does not answer or a port is taken, ConfigError when the
    address or a file is wrong.
    """
    registry = CollectorRegistry()
    calls = ApiCalls(registry)
    if metrics_port is not None:
        try:
            start_http_server(metrics_port, settings.host, registry)
        except OSError as error:
            raise UnreachableError(
                f"metrics cannot listen on {settings.host}:{metrics_port} ({error.strerror}); give"
                " another --metrics-port"
            ) from None
    asyncio.run(_serve(settings, url, calls))


async def _serve(settings: AdminSettings, url: str, calls: ApiCalls) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    runs, server = await RedisRuns.open(url, _ANSWER_S), AdminServer(calls.ended)
    try:
        address = await server.start(settings, runs)
        shown = log_format()
        for text in doubts(settings):
            sys.stderr.write(last_line(text, shown, event="serve", level="warning"))
        how = "TLS" if settings.tls_cert else "no TLS"
        lines = [f"admin API of all runs of {endpoint_of(url).shown} at {address} ({how})"]
        lines += [f"console at {server.console_url}"] if server.console_url else []
        for line in lines:
            sys.stdout.write(json_line(line, event="serve") if shown == "json" else f"{line}\n")
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
