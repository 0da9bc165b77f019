"""The application: the page's files, and the API behind them."""

import asyncio
from pathlib import Path

import grpc
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.requests import ClientDisconnect
from starlette.staticfiles import StaticFiles

from services.console.bridge import Answer, Bridge, refusal

LARGEST = 65_536
"""Bytes of a request, as the gRPC server takes them."""
_SLOWEST_S = 10.0
"""For the whole body of a request."""
_STATIC = Path(__file__).with_name("static")


def application(bridge: Bridge) -> FastAPI:
    """POST /api/v1/<method of the service>, and the page at /."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)

    @app.post("/api/v1/{method}")
    async def call(method: str, request: Request) -> Response:
        try:
            body = await _body(request)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        if isinstance(body, Answer):
            return JSONResponse(body.body, body.status)
        peer = request.client.host if request.client else "an unknown address"
        answer = await bridge.call(method, body, _authorization(request), peer)
        return JSONResponse(answer.body, answer.status)

    app.mount("/", StaticFiles(directory=_STATIC, html=True))
    return app


async def _body(request: Request) -> bytes | Answer:
    """All of it, or why not."""
    body = b""
    try:
        async with asyncio.timeout(_SLOWEST_S):
            async for part in request.stream():
                body += part
                if len(body) > LARGEST:
                    return refusal(
                        grpc.StatusCode.RESOURCE_EXHAUSTED,
                        f"a request has at most {LARGEST} bytes",
                        status=413,
                    )
    except TimeoutError:
        return refusal(
            grpc.StatusCode.DEADLINE_EXCEEDED,
            f"the request did not come within {_SLOWEST_S:.0f} s",
            status=408,
        )
    return body


def _authorization(request: Request) -> str | None:
    """The one token that is given. What gRPC's metadata cannot hold is none that is known."""
    given = request.headers.getlist("authorization")
    if not given:
        return None
    one = given[0]
    return one if len(given) == 1 and one.isascii() and one.isprintable() else "unreadable"
