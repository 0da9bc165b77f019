"""Whether what this container is for answers: the health check of the image.

    python deploy/docker/health.py [TARGET ...]

A target is grpc://HOST:PORT (its health service says SERVING), http://HOST:PORT/PATH (status 200)
or tcp://HOST:PORT (it listens). Without any, those of HEALTH_TARGETS, by spaces; without that too
there is nothing to ask, as for a run, whose process is the container's. Exit status 0 when all
answer, else 1 and a line for the first that does not.
"""

import os
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from urllib.parse import urlsplit

TIMEOUT_S = 5.0


def main(targets: Sequence[str]) -> int:
    """Ask each target; returns the exit status."""
    for target in targets or os.environ.get("HEALTH_TARGETS", "").split():
        if (problem := problem_of(target)) is not None:
            sys.stderr.write(f"{target}: {problem}\n")
            return 1
    return 0


def problem_of(target: str) -> str | None:
    """What is wrong with one target; None where it answers as it should."""
    parts = urlsplit(target)
    match parts.scheme:
        case "grpc":
            return _grpc(parts.netloc)
        case "http" | "https":
            try:
                urllib.request.urlopen(target, timeout=TIMEOUT_S).close()  # noqa: S310
            except (urllib.error.URLError, OSError) as error:
                return str(error)
            return None
        case "tcp":
            try:
                socket.create_connection((parts.hostname, parts.port), TIMEOUT_S).close()
            except OSError as error:
                return str(error)
            return None
    return "no target; write grpc://, http:// or tcp:// and HOST:PORT"


def _grpc(address: str) -> str | None:
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    try:
        with grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
            stub = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
    except grpc.RpcError as error:
        return str(error.code())
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        return "it is not serving"
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
