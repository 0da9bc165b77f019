"""From HTTP with JSON to gRPC: every call of the page is one on a real channel to the service.

So its guard, audit, idempotency and refusals are those of gRPC, and a method that the service
gains is bridged without a word here. Methods that stream are not: the page asks again instead.
"""

from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import json_format, message_factory
from google.rpc import error_details_pb2, status_pb2

from pairloop.admin.v1 import admin_pb2

SERVICE = admin_pb2.DESCRIPTOR.services_by_name["AdminService"]
_OPTIONS = [
    ("grpc.enable_http_proxy", 0),
    # Pages of pairs carry whole groups of answers.
    ("grpc.max_receive_message_length", 32 * 2**20),
]
_TIMEOUT_S = 60.0
"""A proof reads a run's whole ledger."""
_NESTED = 16
"""Levels of a request; the deepest of ours has 2."""
_HTTP = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.FAILED_PRECONDITION: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}
"""The rest is 500."""


@dataclass(frozen=True)
class Answer:
    """What HTTP answers: a status, and a body to be written as JSON."""

    status: int
    body: dict[str, Any]


def refusal(
    code: grpc.StatusCode, message: str, violations: list[dict[str, str]] | None = None,
    status: int | None = None,
) -> Answer:  # fmt: skip
    """An error of either side; `status` where HTTP has a better one than the code's."""
    body = {"code": code.name, "message": message, "violations": violations or []}
    return Answer(status or _HTTP.get(code, 500), body)


class Bridge:
    """Made on the event loop it is used on."""

    def __init__(self, target: str) -> None:
        """`target`: a gRPC address of the admin server."""
        self._channel = grpc.aio.insecure_channel(target, options=_OPTIONS)
        self._calls = {
            method.name: (message_factory.GetMessageClass(method.input_type), self._of(method))
            for method in SERVICE.methods
            if not method.server_streaming and not method.client_streaming
        }

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close(None)

    async def call(self, name: str, body: bytes, authorization: str | None, peer: str) -> Answer:
        """What the method answers to this JSON, with the caller's own token.

        `peer`: shown as who asked for a change where nobody says better.
        """
        if name not in self._calls:
            return refusal(
                grpc.StatusCode.NOT_FOUND,
                f"there is no method {name} that answers once; take {', '.join(self._calls)}",
            )
        kind, ask = self._calls[name]
        request: Any = kind()
        try:
            json_format.Parse(body or b"{}", request, max_recursion_depth=_NESTED)
        except (json_format.ParseError, RecursionError, UnicodeError) as error:
            why = " ".join(str(error).split())[:200]
            return refusal(
                grpc.StatusCode.INVALID_ARGUMENT, f"the body is no {name} request: {why}"
            )
        if "actor" in request.DESCRIPTOR.fields_by_name and not request.actor:
            request.actor = f"console at {peer}"
        token = (("authorization", authorization),) if authorization else ()
        try:
            answer = await ask(request, timeout=_TIMEOUT_S, metadata=token)
        except grpc.aio.AioRpcError as error:
            return refusal(error.code(), error.details() or "", _violations(error))
        shown = json_format.MessageToDict(
            answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        return Answer(200, shown)

    def _of(self, method: Any) -> Any:
        return self._channel.unary_unary(
            f"/{SERVICE.full_name}/{method.name}",
            request_serializer=message_factory.GetMessageClass(method.input_type).SerializeToString,
            response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
        )


def _violations(error: grpc.aio.AioRpcError) -> list[dict[str, str]]:
    """The fields that BadRequest names."""
    found: list[dict[str, str]] = []
    trailing: Any = error.trailing_metadata() or ()  # pairs, whatever the stubs say
    for key, value in trailing:
        if key != "grpc-status-details-bin":
            continue
        for detail in status_pb2.Status.FromString(value).details:
            request = error_details_pb2.BadRequest()
            if detail.Unpack(request):
                found += [
                    {"field": each.field, "description": each.description}
                    for each in request.field_violations
                ]
    return found
