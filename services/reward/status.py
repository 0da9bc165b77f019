"""Errors of the reward as gRPC status codes, and back: what one side raises, the other does."""

import grpc

from services.errors import DataError, LineageError, PairloopError, UnreachableError, WorkerError

_BY_CODE: dict[grpc.StatusCode, type[PairloopError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: DataError,
    grpc.StatusCode.FAILED_PRECONDITION: LineageError,
    grpc.StatusCode.UNAVAILABLE: UnreachableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: UnreachableError,
}
_BY_ERROR = {
    DataError: grpc.StatusCode.INVALID_ARGUMENT,
    LineageError: grpc.StatusCode.FAILED_PRECONDITION,
    UnreachableError: grpc.StatusCode.UNAVAILABLE,
}

MESSAGE_OPTIONS = [
    ("grpc.max_send_message_length", 64 * 2**20),
    ("grpc.max_receive_message_length", 64 * 2**20),
]
"""Of both sides, in bytes: 256 samples of 32,768 tokens with their log-probabilities fit."""


def code_of(error: PairloopError) -> grpc.StatusCode:
    """The status a server answers with; INTERNAL for what has no code of its own."""
    return _BY_ERROR.get(type(error), grpc.StatusCode.INTERNAL)


def error_of(code: grpc.StatusCode, text: str) -> PairloopError:
    """The error a client raises for a status that is not OK."""
    return _BY_CODE.get(code, WorkerError)(text)
