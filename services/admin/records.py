"""The methods of pairloop.admin.v1.AdminService that only read: what a run has written into its
folder, and the audit stream.
"""

import contextlib
from collections.abc import AsyncIterator

from pairloop.admin.v1 import admin_pb2 as messages
from pairloop.admin.v1 import admin_pb2_grpc
from services.admin.answers import LONGEST, Context, refusals, violated
from services.admin.ports import Records, Runs
from services.errors import UnknownPageError

_PAIRS, _MOST_PAIRS = 20, 100
_ENTRIES, _MOST_ENTRIES = 50, 500


class RecordService(admin_pb2_grpc.AdminServiceServicer):
    """A part of AdminService, which sets `_runs`."""

    _runs: Runs

    async def ListPairs(
        self, request: messages.ListPairsRequest, context: Context
    ) -> messages.ListPairsResponse:
        size = await _page_size(request, context, _PAIRS, _MOST_PAIRS)
        async with _reading(request.run, context), _pages(context):
            records = await self._records(request.run)
            page = await records.pairs(request.number, size, request.page_token)
            return messages.ListPairsResponse(pairs=page.items, next_page_token=page.next)

    async def GetConfig(
        self, request: messages.GetConfigRequest, context: Context
    ) -> messages.GetConfigResponse:
        async with _reading(request.run, context):
            return messages.GetConfigResponse(
                yaml=await (await self._records(request.run)).config()
            )

    async def GetCurves(
        self, request: messages.GetCurvesRequest, context: Context
    ) -> messages.GetCurvesResponse:
        async with _reading(request.run, context):
            curves = await (await self._records(request.run)).curves()
            return messages.GetCurvesResponse(curves=curves)

    async def GetLedgerProof(
        self, request: messages.GetLedgerProofRequest, context: Context
    ) -> messages.GetLedgerProofResponse:
        async with _reading(request.run, context):
            return await (await self._records(request.run)).proof()

    async def ListAudit(
        self, request: messages.ListAuditRequest, context: Context
    ) -> messages.ListAuditResponse:
        size = await _page_size(request, context, _ENTRIES, _MOST_ENTRIES)
        async with _reading(request.run, context), _pages(context):
            run = (await self._runs.find(request.run)).id if request.run else ""
            page = await self._runs.audited(run, size, request.page_token)
            return messages.ListAuditResponse(entries=page.items, next_page_token=page.next)

    async def _records(self, run: str) -> Records:
        return self._runs.records(await self._runs.find(run))


async def _page_size(
    request: messages.ListPairsRequest | messages.ListAuditRequest,
    context: Context,
    default: int,
    most: int,
) -> int:
    wrong = {}
    if request.page_size > most:
        wrong["page_size"] = f"is {request.page_size}; ask for {most} at most"
    if len(request.page_token) > LONGEST:
        wrong["page_token"] = _too_long()
    if wrong:
        await violated(context, wrong)
    return request.page_size or default


@contextlib.asynccontextmanager
async def _reading(run: str, context: Context) -> AsyncIterator[None]:
    """Around each method: its errors as gRPC's codes."""
    if len(run) > LONGEST:
        await violated(context, {"run": _too_long()})
    async with refusals(context):
        yield


@contextlib.asynccontextmanager
async def _pages(context: Context) -> AsyncIterator[None]:
    try:
        yield
    except UnknownPageError as error:
        await violated(context, {"page_token": str(error)})


def _too_long() -> str:
    return f"is longer than {LONGEST} characters"
