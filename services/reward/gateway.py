"""The way into the reward: a gRPC server in a small Ray actor, before the Serve handle.

Why not Serve's own gRPC proxy: docs/adr/0002-reward-gateway.md.
"""

import asyncio
import logging
from typing import Any

import grpc
import ray
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio  # type: ignore[attr-defined]
from grpc_reflection.v1alpha import reflection

from pairloop.reward.v1 import reward_pb2, reward_pb2_grpc
from pairloop.reward.v1.reward_pb2 import (
    DescribeRequest,
    DescribeResponse,
    ScoreRequest,
    ScoreResponse,
)
from services.access.guard import Guard
from services.access.tokens import Access, Identity, Role, is_loopback
from services.errors import PairloopError, StallError, UnreachableError, one_line
from services.ray_errors import unwrapped
from services.restarting import RESTARTED, birth
from services.reward.serve_app import RETRYABLE
from services.reward.settings import RewardSettings
from services.reward.status import MESSAGE_OPTIONS, code_of

SERVICE = reward_pb2.DESCRIPTOR.services_by_name["RewardService"].full_name
NAME = "the reward gateway"
_CHARACTERS = 1000
"""Of a failure that goes over the network."""
_READS = ("Score", "Describe")
EVERYWHERE = ("0.0.0.0", "::", "[::]")  # noqa: S104 - only compared with


class RewardServicer(reward_pb2_grpc.RewardServiceServicer):
    """Forwards to `handle`: `handle.score.remote(bytes)` gives bytes or an error of ours."""

    def __init__(self, handle: Any, description: DescribeResponse, timeout_s: float) -> None:
        self._handle = handle
        self._description = description
        self._timeout_s = timeout_s

    async def Score(
        self, request: ScoreRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> ScoreResponse:
        """Score a group within the caller's deadline, or the settings' when it sets none."""
        left = context.time_remaining()
        limit = self._timeout_s if left is None else min(left, self._timeout_s)
        try:
            async with asyncio.timeout(limit):
                answer = await self._handle.score.remote(request.SerializeToString())
        except TimeoutError:
            text = f"{request.prompt.id}: no score within {limit:.1f} s"
            return await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, text)
        except RETRYABLE as error:
            text = f"no reward replica: {one_line(error, _CHARACTERS)}"
            return await context.abort(grpc.StatusCode.UNAVAILABLE, text)
        except Exception as error:  # noqa: BLE001 - the caller gets the cause
            return await context.abort(grpc.StatusCode.INTERNAL, one_line(error, _CHARACTERS))
        if isinstance(answer, PairloopError):
            return await context.abort(code_of(answer), str(answer))
        return ScoreResponse.FromString(answer)

    async def Describe(
        self, request: DescribeRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> DescribeResponse:
        """What scores here."""
        return self._description


class Gateway:
    """The gRPC server; an actor by `create`, used as it is in tests."""

    def __init__(self, settings: RewardSettings, token: str = "") -> None:
        """`token`: the run's own, that lets in where one is asked for."""
        self._settings = settings
        self._access = Access.configured(settings.tokens)
        if token and (self._access.asked or not is_loopback(settings.host)):
            self._access = self._access.beside(token, Identity("the run", Role.WRITE))
        self._server: grpc.aio.Server | None = None
        self._address = ""
        self._born = birth()

    async def start(self, handle: Any, port: int = 0) -> str:
        """Listen before `handle`; returns "host:port". UnreachableError when the port is taken.

        `port`: that of a gateway that died, whose clients are to find this one. Nothing happens
        where it listens already.
        """
        if self._server is not None:
            return self._address
        logging.getLogger("ray.serve").setLevel(logging.ERROR)  # else the handle talks of routing
        async with asyncio.timeout(self._settings.timeout_s):
            described = await handle.describe.remote()
        server = grpc.aio.server(
            options=[("grpc.so_reuseport", 0), *MESSAGE_OPTIONS],
            interceptors=[Guard(self._access, _READS)],
        )
        servicer = RewardServicer(
            handle, DescribeResponse.FromString(described), self._settings.timeout_s
        )
        reward_pb2_grpc.add_RewardServiceServicer_to_server(  # type: ignore[no-untyped-call]
            servicer, server
        )
        health = health_aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(health, server)
        reflection.enable_server_reflection((SERVICE, reflection.SERVICE_NAME), server)
        port = self._bind(server, port or self._settings.port)
        await server.start()
        for service in (SERVICE, ""):
            await health.set(service, health_pb2.HealthCheckResponse.SERVING)
        self._server = server
        host = self._settings.host
        self._address = f"{ray.util.get_node_ip_address() if host in EVERYWHERE else host}:{port}"
        return self._address

    async def stop(self) -> None:
        """Close; calls in flight get a second."""
        if self._server is not None:
            await self._server.stop(grace=1.0)

    async def ping(self) -> str:
        """Its birth, "" before it listens; it answers while the process lives and works."""
        return self._born if self._server is not None else ""

    def _bind(self, server: grpc.aio.Server, port: int) -> int:
        host = self._settings.host
        try:
            bound = server.add_insecure_port(f"{host}:{port}")
        except RuntimeError as error:
            raise UnreachableError(
                f"reward.port {port} on {host} cannot be listened on; is it taken? "
                "Choose another, or 0 for a free one"
            ) from error
        return int(bound)


def create(settings: RewardSettings, token: str = "") -> Any:
    """The gateway as an actor, coming up; `connect` waits for it."""
    return ray.remote(**RESTARTED, max_concurrency=1000)(Gateway).remote(settings, token)


def connect(actor: Any, handle: Any, timeout_s: float) -> str:
    """Let the gateway listen before a Serve handle; returns its address.

    Raises UnreachableError when the port is taken, WorkerError when the actor does not start,
    StallError past `timeout_s`.
    """
    try:
        address: str = ray.get(actor.start.remote(handle), timeout=timeout_s)
    except ray.exceptions.GetTimeoutError as error:
        raise StallError(
            f"{NAME} was not up after {timeout_s:g} s; is the machine overloaded? Look at its log"
        ) from error
    except ray.exceptions.RayError as error:
        raise unwrapped(error, NAME) from error
    return address
