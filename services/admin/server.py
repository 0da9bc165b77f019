"""The gRPC admin server: the service behind its guard, health, reflection; and its web console."""

import asyncio

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from pairloop.admin.v1 import admin_pb2 as messages
from pairloop.admin.v1 import admin_pb2_grpc
from services.access.counting import Counting, Ended
from services.access.decoding import Decoding
from services.access.guard import Guard
from services.access.tokens import Access
from services.admin.feed import Feed
from services.admin.ports import Runs
from services.admin.service import AdminService
from services.admin.settings import AdminSettings
from services.admin.tls import credentials
from services.console.server import ConsoleServer, Tls
from services.errors import UnreachableError

_SERVICE = messages.DESCRIPTOR.services_by_name["AdminService"].full_name
_READS = ("Get", "List", "Watch")
_OPTIONS = [
    # Without it two servers could listen on one port, and each get half of the calls.
    ("grpc.so_reuseport", 0),
    # Requests are some numbers and names.
    ("grpc.max_receive_message_length", 65_536),
    ("grpc.max_metadata_size", 16_384),
]


class AdminServer:
    """Start it once, stop it once, on one event loop."""

    def __init__(self, ended: Ended = lambda code: None) -> None:
        """`ended` is told how each call ended."""
        self._counting = Counting(ended)
        self._server: grpc.aio.Server | None = None
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]  # not in the stubs
        self._ended = asyncio.Event()
        self._feed: Feed | None = None
        self._console: ConsoleServer | None = None

    @property
    def console_url(self) -> str | None:
        """Of the web console; None without one, and before the start."""
        return self._console.url if self._console else None

    async def start(self, settings: AdminSettings, runs: Runs) -> str:
        """Listen; returns "host:port". Raises UnreachableError when a port is taken, ConfigError
        when a file of tokens or of TLS is wrong."""
        access, tls = Access.configured(settings.tokens), credentials(settings)
        self._feed = Feed(runs, self._ended)
        server = grpc.aio.server(
            options=_OPTIONS, interceptors=[self._counting, Guard(access, _READS), Decoding()]
        )
        admin_pb2_grpc.add_AdminServiceServicer_to_server(  # type: ignore[no-untyped-call]
            AdminService(runs, self._feed), server
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection(
            (_SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server
        )
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        at = f"{host}:{settings.port}"
        try:
            port = server.add_secure_port(at, tls) if tls else server.add_insecure_port(at)
        except RuntimeError as error:
            if "port" not in settings.model_fields_set:  # another run has the usual one
                return await self.start(settings.model_copy(update={"port": 0}), runs)
            raise UnreachableError(
                f"the admin API cannot listen on {at}: set admin.port to a "
                "free port, or to 0 for any, and admin.host to an address of this machine"
            ) from error
        if settings.console_port is not None:
            self._console = _console(settings, settings.console_port)
            server.add_insecure_port(self._console.upstream)
        for name in ("", _SERVICE):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        await server.start()
        self._server = server
        if self._console is not None:
            await self._console.start()
        return f"{host}:{port}"

    async def stop(self, grace_s: float = 2.0) -> None:
        """End the watches after a last look, let calls finish for `grace_s`, close."""
        self._ended.set()
        if self._console is not None:
            await self._console.stop()
            self._console = None
        if self._server is not None:
            await self._health.enter_graceful_shutdown()
            await self._server.stop(grace_s)
            self._server = None
        if self._feed is not None:
            await self._feed.close()


def _console(settings: AdminSettings, port: int) -> ConsoleServer:
    """Bound. A port that nobody asked for is no reason to end a run."""
    tls = None
    if settings.tls_cert is not None and settings.tls_key is not None:
        tls = Tls(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
    or_any = "console_port" not in settings.model_fields_set
    return ConsoleServer.bound(settings.host, port, or_any, tls)
