"""Methods of a gRPC server as what stands before them sees them, and wraps them."""

from typing import Any

import grpc

Handler = Any
"""A grpc.RpcMethodHandler, which no type can be made of while it runs."""


def work_of(handler: Handler) -> Any:
    """The function behind it, of whichever kind; those that read a stream are not told apart."""
    return handler.unary_unary or handler.unary_stream or handler.stream_stream


def alike(handler: Handler, one: Any, many: Any) -> Handler:
    """A handler of the same kind around another function."""
    ways = {
        "request_deserializer": handler.request_deserializer,
        "response_serializer": handler.response_serializer,
    }
    if handler.unary_unary is not None:
        return grpc.unary_unary_rpc_method_handler(one, **ways)
    if handler.unary_stream is not None:
        return grpc.unary_stream_rpc_method_handler(many, **ways)
    return grpc.stream_stream_rpc_method_handler(many, **ways)
