"""The methods of pairloop.admin.v1.AdminService: one line of work each, on the ports."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from pairloop.admin.v1 import admin_pb2 as messages
from pairloop.admin.v1 import admin_pb2_grpc
from services.admin.answers import Context, EpisodeRequest, change, refusals, violated
from services.admin.ports import Episodes, Runs
from services.admin.watch import changes


class AdminService(admin_pb2_grpc.AdminServiceServicer):
    """Stateless; `ended` is set when its server stops."""

    def __init__(self, runs: Runs, ended: asyncio.Event) -> None:
        self._runs, self._ended = runs, ended

    async def ListRuns(
        self, request: messages.ListRunsRequest, context: Context
    ) -> messages.ListRunsResponse:
        async with refusals(context):
            return messages.ListRunsResponse(runs=await self._runs.list())

    async def GetRun(
        self, request: messages.GetRunRequest, context: Context
    ) -> messages.GetRunResponse:
        async with refusals(context):
            return messages.GetRunResponse(run=await self._runs.find(request.run))

    async def GetEpisode(
        self, request: messages.GetEpisodeRequest, context: Context
    ) -> messages.GetEpisodeResponse:
        async with refusals(context):
            episode = await (await self._episodes(request.run)).get(request.number)
            return messages.GetEpisodeResponse(episode=episode)

    async def ListEpisodes(
        self, request: messages.ListEpisodesRequest, context: Context
    ) -> messages.ListEpisodesResponse:
        async with refusals(context):
            episodes = await (await self._episodes(request.run)).list()
            return messages.ListEpisodesResponse(episodes=episodes)

    async def PauseEpisode(
        self, request: messages.PauseEpisodeRequest, context: Context
    ) -> messages.PauseEpisodeResponse:
        async with self._changing(request, context, "PauseEpisode") as (episodes, asked):
            episode = await episodes.pause(request.number, asked)
        return messages.PauseEpisodeResponse(episode=episode)

    async def ResumeEpisode(
        self, request: messages.ResumeEpisodeRequest, context: Context
    ) -> messages.ResumeEpisodeResponse:
        async with self._changing(request, context, "ResumeEpisode") as (episodes, asked):
            episode = await episodes.resume(request.number, asked)
        return messages.ResumeEpisodeResponse(episode=episode)

    async def CancelEpisode(
        self, request: messages.CancelEpisodeRequest, context: Context
    ) -> messages.CancelEpisodeResponse:
        if not request.number:
            await violated(context, {"number": "is missing: name the episode to cancel"})
        async with self._changing(request, context, "CancelEpisode") as (episodes, asked):
            episode = await episodes.cancel(request.number, asked)
        return messages.CancelEpisodeResponse(episode=episode)

    async def WatchEpisodes(
        self, request: messages.WatchEpisodesRequest, context: Context
    ) -> AsyncIterator[messages.WatchEpisodesResponse]:
        async with refusals(context):
            episodes = await self._episodes(request.run)
            async for episode in changes(episodes, self._ended, request.number):
                yield messages.WatchEpisodesResponse(episode=episode)

    async def ListDeadLetters(
        self, request: messages.ListDeadLettersRequest, context: Context
    ) -> messages.ListDeadLettersResponse:
        async with refusals(context):
            letters = await (await self._episodes(request.run)).dead_letters(request.number)
            return messages.ListDeadLettersResponse(letters=letters)

    async def RetryDeadLetters(
        self, request: messages.RetryDeadLettersRequest, context: Context
    ) -> messages.RetryDeadLettersResponse:
        async with self._changing(request, context, "RetryDeadLetters") as (episodes, _):
            retried = await episodes.replay(request.number)
        return messages.RetryDeadLettersResponse(retried=retried)

    async def ListWorkers(
        self, request: messages.ListWorkersRequest, context: Context
    ) -> messages.ListWorkersResponse:
        async with refusals(context):
            workers = self._runs.workers(await self._runs.find(request.run))
            return messages.ListWorkersResponse(workers=workers.list())

    async def ScaleWorkers(
        self, request: messages.ScaleWorkersRequest, context: Context
    ) -> messages.ScaleWorkersResponse:
        wrong = {
            name: f"is missing: {what}"
            for name, what in (("kind", "rollout or pairing"), ("count", "1 or more"))
            if not getattr(request, name)
        }
        if wrong:
            await violated(context, wrong)
        what = f"{messages.WorkerKind.Name(request.kind)}={request.count}"
        async with change(self._runs, request, context, "ScaleWorkers", what) as (run, asked):
            workers = self._runs.workers(run)
            note = workers.scale(request.kind, request.count, asked)
            every = workers.list()
        return messages.ScaleWorkersResponse(workers=every, note=note)

    async def DrainWorker(
        self, request: messages.DrainWorkerRequest, context: Context
    ) -> messages.DrainWorkerResponse:
        if not request.name:
            await violated(context, {"name": "is missing: name the worker that is to leave"})
        async with change(self._runs, request, context, "DrainWorker", request.name) as (run, by):
            workers = self._runs.workers(run)
            workers.drain(request.name, by)
            every = workers.list()
        return messages.DrainWorkerResponse(workers=every)

    @contextlib.asynccontextmanager
    async def _changing(
        self, request: EpisodeRequest, context: Context, method: str
    ) -> AsyncIterator[tuple[Episodes, messages.Change]]:
        """The episodes of the run that is meant, and the change."""
        what = f"episode {request.number}" if request.number else "the current episode"
        async with change(self._runs, request, context, method, what) as (run, asked):
            yield await self._runs.episodes(run), asked

    async def _episodes(self, run: str) -> Episodes:
        return await self._runs.episodes(await self._runs.find(run))
