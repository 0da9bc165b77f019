"""The gRPC admin server: episodes to look at, pause and resume, workers to look at and to have more
or fewer of; health and reflection."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from pairloop.admin.v1 import admin_pb2 as messages
from pairloop.admin.v1 import admin_pb2_grpc
from services.admin.ports import Episodes, Workers
from services.admin.settings import AdminSettings
from services.admin.watch import changes
from services.errors import StateError, UnknownEpisodeError, UnreachableError

_SERVICE = messages.DESCRIPTOR.services_by_name["AdminService"].full_name
_Change = (
    messages.PauseEpisodeRequest | messages.ResumeEpisodeRequest | messages.ScaleWorkersRequest
)
_Context = grpc.aio.ServicerContext[Any, Any]


class AdminServer:
    """Start it once, stop it once, on one event loop."""

    def __init__(self) -> None:
        self._server: grpc.aio.Server | None = None
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]  # not in the stubs
        self._ended = asyncio.Event()

    async def start(self, settings: AdminSettings, episodes: Episodes, workers: Workers) -> str:
        """Listen; returns "host:port". Raises UnreachableError when the port is taken.

        There is no authentication: a host other than loopback opens the run to its network.
        """
        # Without the option two runs could listen on one port, and each get half of the calls.
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        admin_pb2_grpc.add_AdminServiceServicer_to_server(  # type: ignore[no-untyped-call]
            _Service(episodes, workers, self._ended), server
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection(
            (_SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server
        )
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        try:
            port = server.add_insecure_port(f"{host}:{settings.port}")
        except RuntimeError as error:
            raise UnreachableError(
                f"the admin API cannot listen on {host}:{settings.port}: set admin.port to a "
                "free port, or to 0 for any, and admin.host to an address of this machine"
            ) from error
        for name in ("", _SERVICE):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        await server.start()
        self._server = server
        return f"{host}:{port}"

    async def stop(self, grace_s: float = 2.0) -> None:
        """End the watches after a last look, let calls finish for `grace_s`, close."""
        self._ended.set()
        if self._server is not None:
            await self._health.enter_graceful_shutdown()
            await self._server.stop(grace_s)
            self._server = None


class _Service(admin_pb2_grpc.AdminServiceServicer):
    def __init__(self, episodes: Episodes, workers: Workers, ended: asyncio.Event) -> None:
        self._episodes, self._workers = episodes, workers
        self._ended = ended

    async def GetEpisode(
        self, request: messages.GetEpisodeRequest, context: _Context
    ) -> messages.GetEpisodeResponse:
        async with self._refusals(request.run, context):
            episode = await self._episodes.get(request.number)
        return messages.GetEpisodeResponse(episode=episode)

    async def ListEpisodes(
        self, request: messages.ListEpisodesRequest, context: _Context
    ) -> messages.ListEpisodesResponse:
        async with self._refusals(request.run, context):
            episodes = await self._episodes.list()
        return messages.ListEpisodesResponse(episodes=episodes)

    async def PauseEpisode(
        self, request: messages.PauseEpisodeRequest, context: _Context
    ) -> messages.PauseEpisodeResponse:
        async with self._refusals(request.run, context):
            change = await _change(request, context)
            episode = await self._episodes.pause(request.number, change)
        return messages.PauseEpisodeResponse(episode=episode)

    async def ResumeEpisode(
        self, request: messages.ResumeEpisodeRequest, context: _Context
    ) -> messages.ResumeEpisodeResponse:
        async with self._refusals(request.run, context):
            change = await _change(request, context)
            episode = await self._episodes.resume(request.number, change)
        return messages.ResumeEpisodeResponse(episode=episode)

    async def WatchEpisodes(
        self, request: messages.WatchEpisodesRequest, context: _Context
    ) -> AsyncIterator[messages.WatchEpisodesResponse]:
        async with self._refusals(request.run, context):
            async for episode in changes(self._episodes, self._ended, request.number):
                yield messages.WatchEpisodesResponse(episode=episode)

    async def ListDeadLetters(
        self, request: messages.ListDeadLettersRequest, context: _Context
    ) -> messages.ListDeadLettersResponse:
        async with self._refusals(request.run, context):
            letters = await self._episodes.dead_letters(request.number)
        return messages.ListDeadLettersResponse(letters=letters)

    async def ReplayDeadLetters(
        self, request: messages.ReplayDeadLettersRequest, context: _Context
    ) -> messages.ReplayDeadLettersResponse:
        async with self._refusals(request.run, context):
            replayed = await self._episodes.replay(request.number)
        return messages.ReplayDeadLettersResponse(replayed=replayed)

    async def ListWorkers(
        self, request: messages.ListWorkersRequest, context: _Context
    ) -> messages.ListWorkersResponse:
        async with self._refusals(request.run, context):
            workers = self._workers.list()
        return messages.ListWorkersResponse(workers=workers)

    async def ScaleWorkers(
        self, request: messages.ScaleWorkersRequest, context: _Context
    ) -> messages.ScaleWorkersResponse:
        async with self._refusals(request.run, context):
            change = await _change(request, context)
            if not request.kind or not request.count:
                await context.abort(
                    grpc.StatusCode.INVALID_ARGUMENT,
                    "a kind of workers and a count of at least 1 are needed",
                )
            note = self._workers.scale(request.kind, request.count, change)
            workers = self._workers.list()
        return messages.ScaleWorkersResponse(workers=workers, note=note)

    @asynccontextmanager
    async def _refusals(self, run: str, context: _Context) -> AsyncIterator[None]:
        """Our errors as gRPC's codes."""
        if run not in ("", self._episodes.run):
            await context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"no run {run} here: this server belongs to {self._episodes.run}",
            )
        try:
            yield
        except UnknownEpisodeError as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(error))
        except StateError as error:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        except UnreachableError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))


async def _change(request: _Change, context: _Context) -> messages.Change:
    for name in ("request_id", "reason"):
        if not getattr(request, name).strip():
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, f"{name} is missing: every change needs one"
            )
    now = Timestamp()
    now.GetCurrentTime()
    return messages.Change(
        actor=request.actor or context.peer(),
        reason=request.reason,
        request_id=request.request_id,
        time=now,
    )
