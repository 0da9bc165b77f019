"""Stands before every method, and before whoever refuses calls: how each of them ended."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from services.access.handlers import Handler, alike, work_of

Ended = Callable[[str], None]
"""Is told the name of gRPC's code of a call that is over, such as "OK"."""


class Counting(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # no generic when it runs
    """One server's."""

    def __init__(self, ended: Ended) -> None:
        self._ended = ended

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        details: grpc.HandlerCallDetails,
    ) -> Handler:
        """The method's handler; a method that is not there has none, and is not counted."""
        handler = await continuation(details)
        if handler is None:
            return handler
        work = work_of(handler)

        async def one(request: Any, context: Any) -> Any:
            try:
                answer = await work(request, context)
            except BaseException:
                self._ended(_code(context, grpc.StatusCode.UNKNOWN))
                raise
            self._ended("OK")
            return answer

        async def many(request: Any, context: Any) -> AsyncIterator[Any]:
            try:
                async for each in work(request, context):
                    yield each
            except BaseException:
                # A caller that has seen enough ends a watch so.
                self._ended(_code(context, grpc.StatusCode.CANCELLED))
                raise
            self._ended("OK")

        return alike(handler, one, many)


def _code(context: Any, otherwise: grpc.StatusCode) -> str:
    """What a call was refused with."""
    code = context.code()
    return str((code if isinstance(code, grpc.StatusCode) and code.value[0] else otherwise).name)
