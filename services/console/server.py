"""The console's listener: uvicorn on the event loop of the admin server, in front of its bridge."""

import asyncio
import contextlib
import shutil
import socket
import ssl
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import uvicorn

from services.access.tokens import is_loopback
from services.console.app import application
from services.console.bridge import Bridge
from services.console.guard import Guard
from services.errors import ConfigError, UnreachableError

_CONNECTIONS = 256
"""More are answered with 503: whoever opens thousands takes no memory from the run."""
_SOCKET_PATH = 100
"""Bytes that the path of a unix socket may have, and some to spare."""


@dataclass(frozen=True)
class Tls:
    """PEM files, those of the admin API."""

    cert: str
    key: str
    client_ca: str | None


class ConsoleServer:
    """Made by `bound`; start it once, stop it once, on one event loop."""

    def __init__(self, listening: socket.socket, host: str, tls: Tls | None) -> None:
        self._listening, self._host, self._tls = listening, host, tls
        # Of this user alone (0700): calls on it meet no TLS.
        self._folder = Path(tempfile.mkdtemp(prefix="pairloop-", dir=_short_folder()))
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None
        self._bridge: Bridge | None = None

    @classmethod
    def bound(cls, host: str, port: int, or_any: bool, tls: Tls | None) -> Self:
        """Take the port, or with `or_any` a free one where it is taken.

        Raises UnreachableError when it cannot, or has no place for temporary files.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            listening = socket.create_server((host, port), family=family)
        except OSError:
            if or_any and port:
                return cls.bound(host, 0, or_any, tls)
            raise UnreachableError(
                f"the console cannot listen on {host}:{port}: set admin.console_port to a free"
                " port, to 0 for any or to null for none, and admin.host to an address of this"
                " machine"
            ) from None
        try:
            return cls(listening, host, tls)
        except OSError as error:
            listening.close()
            raise UnreachableError(
                f"the console cannot make a folder for its socket ({error}); let TMPDIR name"
                " one, or set admin.console_port to null for no console"
            ) from None

    @property
    def upstream(self) -> str:
        """Where the gRPC server is to listen for the bridge."""
        return f"unix:{self._folder / 'admin'}"

    @property
    def url(self) -> str:
        """Of the page."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        port = self._listening.getsockname()[1]
        return f"{'https' if self._tls else 'http'}://{host}:{port}/"

    async def start(self) -> None:
        """Answer from now on. Raises ConfigError when a file of TLS is wrong."""
        self._bridge = Bridge(self.upstream)
        names = frozenset({"localhost", "127.0.0.1", "::1", self._host.strip("[]").lower()})
        app = Guard(application(self._bridge), names if is_loopback(self._host) else None)
        tls = self._tls
        config = uvicorn.Config(
            app,
            http="h11",
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="error",  # not what every scanner sends
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=_CONNECTIONS,
            timeout_graceful_shutdown=1,
            ssl_certfile=tls.cert if tls else None,
            ssl_keyfile=tls.key if tls else None,
            ssl_ca_certs=tls.client_ca if tls else None,
            ssl_cert_reqs=ssl.CERT_REQUIRED if tls and tls.client_ca else ssl.CERT_NONE,
        )
        try:
            config.load()
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"'admin.tls_cert': the console cannot use {tls.cert if tls else ''} ({error});"
                " name a certificate and its key"
            ) from None
        self._server = _Server(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._listening]))

    async def stop(self) -> None:
        """Let requests finish for a second, close."""
        if self._server is not None and self._serving is not None:
            self._server.should_exit = True
            await self._serving
        if self._bridge is not None:
            await self._bridge.close()
        self._listening.close()
        shutil.rmtree(self._folder, ignore_errors=True)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the process's own affair."""
        yield


def _short_folder() -> str | None:
    """For a socket whose path is limited; None: the usual one for temporary files."""
    usual = tempfile.gettempdir()
    return None if len(usual) + len("/pairloop-12345678/admin") < _SOCKET_PATH else "/tmp"  # noqa: S108
