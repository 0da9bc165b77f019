"""Whether the addresses of a job answer and its ports are free: checked before heavy imports."""

import os
import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

from orchestrator.config.ray import RaySettings
from orchestrator.jobs.job import Job
from services.errors import ConfigError, UnreachableError


def check_addresses(ray: RaySettings, stages: Sequence[Job]) -> None:
    """UnreachableError when Ray or Redis does not answer, or a port to listen on is taken."""
    address = ray.address or os.environ.get("RAY_ADDRESS", "")
    if address and address not in ("auto", "local"):
        _reachable(address if "//" in address else f"ray://{address}", "Ray", "ray.address", 6379)
    for stage in stages:
        queues = stage.redis()
        if queues is not None and queues.configured_url:
            _reachable(queues.configured_url, "Redis", "queues.url or REDIS_URL", 6379)
        for listener in stage.listeners():
            _port_free(listener.host, listener.port, listener.key)


def _reachable(url: str, what: str, key: str, default_port: int) -> None:
    parts = urlsplit(url)
    try:
        host, port = parts.hostname or "127.0.0.1", parts.port or default_port
    except ValueError:
        raise ConfigError(f"'{key}': not an address; write {what.lower()}://host:port") from None
    try:
        socket.create_connection((host, port), timeout=2.0).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise UnreachableError(
            f"{what} does not answer at {host}:{port} ({reason}); start it, or change {key}"
        ) from None


def _port_free(host: str, port: int, key: str) -> None:
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
