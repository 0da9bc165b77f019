"""The methods of pairloop.admin.v1.AdminService: one line of work each, on the ports."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from pairloop.admin.v1 import admin_pb2 as messages
from services.admin.answers import (
    LONGEST,
    Context,
    EpisodeRequest,
    change,
    paged,
    refusals,
    violated,
)
from services.admin.feed import Feed
from services.admin.ports import Asked, Episodes, Runs
from services.admin.records import RecordService

_PAGE = 1000
_ERRORS = 10
_KINDS = (messages.WORKER_KIND_ROLLOUT, messages.WORKER_KIND_PAIRING)


class AdminService(RecordService):
    """Stateless."""

    def __init__(self, runs: Runs, feed: Feed) -> None:
        self._runs, self._feed = runs, feed

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
            episodes = await self._episodes(request.run)
            episode = await episodes.get(request.number)
            letters = await episodes.dead_letters(episode.number)
            # One cause that met many is one line.
            errors = dict.fromkeys(letter.error[:LONGEST] for letter in reversed(letters))
            episode.recent_errors.extend(list(errors)[:_ERRORS])
            return messages.GetEpisodeResponse(episode=episode)

    async def ListEpisodes(
        self, request: messages.ListEpisodesRequest, context: Context
    ) -> messages.ListEpisodesResponse:
        async with refusals(context):
            at, size = await paged(context, request.page_size, request.page_token, _PAGE, _PAGE)
            episodes, found = await self._episodes(request.run), list[messages.Episode]()
            while len(found) < size and (part := await episodes.list(at + 1, _PAGE)):
                for episode in part:
                    at = episode.number
                    if not request.states or episode.state in request.states:
                        found.append(episode)
                    if len(found) == size:
                        break
            more = len(found) == size and await episodes.list(at + 1, 1)
            token = str(at) if more else ""
            return messages.ListEpisodesResponse(episodes=found, next_page_token=token)

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

    async def Watch(
        self, request: messages.WatchRequest, context: Context
    ) -> AsyncIterator[messages.WatchResponse]:
        async with refusals(context):
            run = (await self._runs.find(request.run)).id if request.run else ""
            async for changed in self._feed.changes(run, request.position):
                yield changed

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
            run = await self._runs.find(request.run)
            return messages.ListWorkersResponse(workers=await self._runs.workers(run))

    async def ScaleWorkers(
        self, request: messages.ScaleWorkersRequest, context: Context
    ) -> messages.ScaleWorkersResponse:
        wrong = {}
        if request.kind not in _KINDS:
            wrong["kind"] = "is missing: rollout or pairing"
        if not request.count:
            wrong["count"] = "is missing: 1 or more"
        if wrong:
            await violated(context, wrong)
        what = f"{messages.WorkerKind.Name(request.kind)}={request.count}"
        run, note = await self._carried_out(request, context, "ScaleWorkers", what)
        return messages.ScaleWorkersResponse(workers=await self._runs.workers(run), note=note)

    async def DrainWorker(
        self, request: messages.DrainWorkerRequest, context: Context
    ) -> messages.DrainWorkerResponse:
        if not 0 < len(request.name) <= LONGEST:
            await violated(context, {"name": "is missing: name the worker that is to leave"})
        run, _ = await self._carried_out(request, context, "DrainWorker", request.name)
        return messages.DrainWorkerResponse(workers=await self._runs.workers(run))

    async def PauseRun(
        self, request: messages.PauseRunRequest, context: Context
    ) -> messages.PauseRunResponse:
        run, note = await self._carried_out(request, context, "PauseRun", "the run")
        return messages.PauseRunResponse(run=run, note=note)

    async def ResumeRun(
        self, request: messages.ResumeRunRequest, context: Context
    ) -> messages.ResumeRunResponse:
        run, note = await self._carried_out(request, context, "ResumeRun", "the run")
        return messages.ResumeRunResponse(run=run, note=note)

    async def StopRun(
        self, request: messages.StopRunRequest, context: Context
    ) -> messages.StopRunResponse:
        run, _ = await self._carried_out(request, context, "StopRun", "the run")
        return messages.StopRunResponse(run=run)

    async def SetStaleness(
        self, request: messages.SetStalenessRequest, context: Context
    ) -> messages.SetStalenessResponse:
        what = f"max_staleness={request.max_staleness}"
        run, note = await self._carried_out(request, context, "SetStaleness", what)
        return messages.SetStalenessResponse(run=run, note=note)

    async def _carried_out(
        self, request: Any, context: Context, method: str, what: str
    ) -> tuple[messages.Run, str]:
        """The run after a change that it carries out itself, and what it says of it."""
        async with change(self._runs, request, context, method, what) as (run, asked):
            note = await self._runs.carry_out(run, Asked(method, request, asked))
            run = await self._runs.find(run.id)
        return run, note

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
