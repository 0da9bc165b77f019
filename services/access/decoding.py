"""Stands before every method: bytes that are no message of it are the caller's mistake.

gRPC's own asyncio server calls them an unknown error of the server, and writes a traceback for
each.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from services.access.handlers import Handler, work_of


class Decoding(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # no generic when it runs
    """INVALID_ARGUMENT for what cannot be read; of unary requests, which is what there is here."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        details: grpc.HandlerCallDetails,
    ) -> Handler:
        """The method's handler on bytes."""
        handler = await continuation(details)
        if handler is None or handler.request_streaming or handler.request_deserializer is None:
            return handler
        read, work = handler.request_deserializer, work_of(handler)

        async def message(body: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            try:
                return read(body)
            except DecodeError:
                what = f"these {len(body)} bytes are no request of {details.method}"
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, what)

        async def answer(body: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            return await work(await message(body, context), context)

        async def answers(
            body: bytes, context: grpc.aio.ServicerContext[Any, Any]
        ) -> AsyncIterator[Any]:
            async for each in work(await message(body, context), context):
                yield each

        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(answers, None, handler.response_serializer)
        return grpc.unary_unary_rpc_method_handler(answer, None, handler.response_serializer)
