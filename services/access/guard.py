"""Stands before every call: whose token it carries, and whether its role allows the method.

Health is answered to everybody, as probes carry no token.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import grpc
from grpc_health.v1 import health

from services.access.handlers import Handler, alike, work_of
from services.access.tokens import NOBODY_ASKED, Access, Identity, Role

_REFLECTION = "ServerReflection"
_caller: ContextVar[Identity] = ContextVar("caller", default=NOBODY_ASKED)


def caller() -> Identity:
    """Of the call that is being answered."""
    return _caller.get()


class Guard(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # no generic when it runs
    """One server's."""

    def __init__(self, access: Access, reads: tuple[str, ...]) -> None:
        """`reads`: how the names of methods begin that change nothing; every other one writes."""
        self._access, self._reads = access, (*reads, _REFLECTION)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        details: grpc.HandlerCallDetails,
    ) -> Handler:
        """The method's handler, or one that refuses the call."""
        handler = await continuation(details)
        service, _, method = details.method.strip("/").partition("/")
        # None, whatever the stubs say, for a method that is not there.
        if handler is None or service == health.SERVICE_NAME or not self._access.asked:
            return handler
        given = [value for key, value in details.invocation_metadata if key == "authorization"]
        owner = self._access.owner(str(given[0])) if len(given) == 1 else None
        needed = Role.READ if method.startswith(self._reads) else Role.WRITE
        if owner is None:
            return _refusing(
                handler,
                grpc.StatusCode.UNAUTHENTICATED,
                "a token is needed that this server knows; give it as 'authorization: Bearer ...'",
            )
        if not owner.role.covers(needed):
            return _refusing(
                handler,
                grpc.StatusCode.PERMISSION_DENIED,
                f"{owner.name} has the role {owner.role}, and {method} needs {needed}; ask for"
                " another token",
            )
        return _as(owner, handler)


def _as(owner: Identity, handler: Handler) -> Handler:
    """The handler, with the caller's identity known while it works."""

    answer = work_of(handler)

    async def one(request: Any, context: Any) -> Any:
        _caller.set(owner)
        return await answer(request, context)

    async def many(request: Any, context: Any) -> AsyncIterator[Any]:
        _caller.set(owner)
        async for each in answer(request, context):
            yield each

    return alike(handler, one, many)


def _refusing(handler: Handler, code: grpc.StatusCode, text: str) -> Handler:
    async def one(request: Any, context: Any) -> Any:
        await context.abort(code, text)

    async def many(request: Any, context: Any) -> AsyncIterator[Any]:
        await context.abort(code, text)
        yield

    return alike(handler, one, many)
