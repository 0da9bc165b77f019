"""What every method of the admin API does around its own work: our errors as gRPC's codes, and for
a change the fields it needs, who asks, and its line in the audit stream.
"""

import contextlib
from collections.abc import AsyncIterator
from typing import Any, Protocol

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import code_pb2, error_details_pb2, status_pb2

from pairloop.admin.v1 import admin_pb2 as messages
from services.access.guard import caller
from services.admin.ports import AuditEntry, Runs
from services.errors import (
    PairloopError,
    ResourceError,
    StateError,
    UnknownEpisodeError,
    UnknownRunError,
    UnreachableError,
)

LONGEST = 500
"""Characters of a text that a caller gives: it is shown in tables and kept in Redis."""
Context = grpc.aio.ServicerContext[Any, Any]
_CODES: tuple[tuple[type[PairloopError], grpc.StatusCode], ...] = (
    (UnknownEpisodeError, grpc.StatusCode.NOT_FOUND),
    (UnknownRunError, grpc.StatusCode.NOT_FOUND),
    (StateError, grpc.StatusCode.FAILED_PRECONDITION),
    (UnreachableError, grpc.StatusCode.UNAVAILABLE),
    (ResourceError, grpc.StatusCode.RESOURCE_EXHAUSTED),
)


class ChangeRequest(Protocol):
    """The fields of every request that changes something."""

    run: str
    reason: str
    request_id: str
    actor: str


class EpisodeRequest(ChangeRequest, Protocol):
    """One that is about an episode."""

    number: int


@contextlib.asynccontextmanager
async def refusals(context: Context) -> AsyncIterator[None]:
    """Our errors as gRPC's codes."""
    try:
        yield
    except PairloopError as error:
        for kind, code in _CODES:
            if isinstance(error, kind):
                await context.abort(code, str(error))
        raise


@contextlib.asynccontextmanager
async def change(
    runs: Runs, request: ChangeRequest, context: Context, method: str, what: str
) -> AsyncIterator[tuple[messages.Run, messages.Change]]:
    """The run that is meant, and the change; what becomes of it goes to the audit stream."""
    await require_fields(request, context)
    now = Timestamp()
    now.GetCurrentTime()
    asked = messages.Change(
        actor=caller().name or request.actor or context.peer(),
        reason=request.reason,
        request_id=request.request_id,
        time=now,
    )
    async with refusals(context):
        run = await runs.find(request.run)
        entry = AuditEntry(
            time=now.ToDatetime().isoformat(timespec="milliseconds") + "Z",
            run=run.id,
            method=method,
            what=what,
            actor=asked.actor,
            peer=context.peer(),
            reason=asked.reason,
            request_id=asked.request_id,
            outcome="done",
        )
        try:
            yield run, asked
        except PairloopError as error:
            with contextlib.suppress(UnreachableError):
                await runs.audit(entry.of(str(error)))
            raise
        await runs.audit(entry)


async def require_fields(request: ChangeRequest, context: Context) -> None:
    """INVALID_ARGUMENT, with a violation for each field that is missing or too long."""
    wrong = {
        name: "is missing: every change needs one"
        for name in ("reason", "request_id")
        if not getattr(request, name).strip()
    }
    for name in ("run", "reason", "request_id", "actor"):
        if len(getattr(request, name)) > LONGEST:
            wrong[name] = f"is longer than {LONGEST} characters"
    if wrong:
        await violated(context, wrong)


async def paged(
    context: Context, page_size: int, page_token: str, usual: int, most: int
) -> tuple[int, int]:
    """The number that a page begins after, and how many it has at most.

    INVALID_ARGUMENT for a token that no page before gave, or a size above `most`.
    """
    wrong, token = {}, page_token or "0"
    if page_size > most:
        wrong["page_size"] = f"is {page_size}; ask for {most} at most"
    if not (token.isascii() and token.isdecimal() and len(token) < 11):
        wrong |= {"page_token": "is none that a page before gave"}
    if wrong:
        await violated(context, wrong)
    return int(token), page_size or usual


async def violated(context: Context, wrong: dict[str, str]) -> None:
    """INVALID_ARGUMENT: what is wrong with each field, for people and (BadRequest) programs."""
    details = error_details_pb2.BadRequest(
        field_violations=[
            error_details_pb2.BadRequest.FieldViolation(field=name, description=why)
            for name, why in wrong.items()
        ]
    )
    text = "; ".join(f"{name} {why}" for name, why in wrong.items())
    status = status_pb2.Status(code=code_pb2.INVALID_ARGUMENT, message=text)
    status.details.add().Pack(details)
    metadata = (("grpc-status-details-bin", status.SerializeToString()),)
    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, text, metadata)
