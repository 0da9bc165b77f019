"""Whether the addresses of a job answer and its ports are free: checked before heavy imports."""

import asyncio
import os
import socket
from collections.abc import Sequence
from itertools import combinations
from urllib.parse import urlsplit

from orchestrator.config.ray import RaySettings
from orchestrator.jobs.job import Job, Listener
from services.errors import ConfigError, UnreachableError

_RAY_PORT = 6379


def check_addresses(ray: RaySettings, stages: Sequence[Job], own: Sequence[Listener] = ()) -> None:
    """UnreachableError when Ray or Redis does not answer, or a port to listen on is taken.

    ConfigError for a Redis that would lose prompts. `own`: what the run itself listens on.
    """
    check_ray(ray)
    used = {
        queues.configured_url: queues.connect_timeout_s
        for stage in stages
        if (queues := stage.redis()) is not None
    }
    for url, timeout_s in used.items():
        if url:
            # Imported here: a job without a Redis of its own needs no client yet.
            from services.queues.client import look

            # What it is to be warned of, the run says: see orchestrator/online/run.py.
            asyncio.run(look(url, timeout_s))
    for stage in stages:
        # The run's are taken all the while, those of different stages one after the other.
        for one, other in combinations([*own, *stage.listeners()], 2):
            if one.port and one.port == other.port:
                raise ConfigError(
                    f"{one.key} and {other.key} are both {one.port}; set one to another"
                )
        for listener in stage.listeners():
            check_port(listener)
    for mine in own:
        check_port(mine)


def check_ray(ray: RaySettings) -> None:
    """UnreachableError when the cluster that is named does not answer; a local one is started."""
    address = ray.address or os.environ.get("RAY_ADDRESS", "")
    if not address or address in ("auto", "local"):
        return
    parts = urlsplit(address if "//" in address else f"ray://{address}")
    try:
        host, port = parts.hostname or "127.0.0.1", parts.port or _RAY_PORT
    except ValueError:
        raise ConfigError("'ray.address': not an address; write ray://host:port") from None
    try:
        socket.create_connection((host, port), timeout=2.0).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise UnreachableError(
            f"Ray does not answer at {host}:{port} ({reason}); start it, or change ray.address"
        ) from None


def check_port(listener: Listener) -> None:
    """UnreachableError when its port is taken."""
    host, port, key = listener.host, listener.port, listener.key
    if port == 0:
        return
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UnreachableError(
                f"port {port} on {host} cannot be taken ({error.strerror}); is another run using"
                f" it? set {key} to another, or to 0 for a free one"
            ) from None
