"""The admin API that a command asks: where it is, as whom, and what its refusals say."""

import contextlib
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import click
import grpc

from orchestrator.control.registration import user_name
from pairloop.admin.v1.admin_pb2_grpc import AdminServiceStub

P = ParamSpec("P")
R = TypeVar("R")
ADDRESS = "127.0.0.1:50051"
ANSWER_S = 15.0
_CLOSING_S = 0.2
"""The connections of a process that is killed are gone a moment before its port is."""
_CONNECT_S = 3.0
"""A refused connection is known at once; this is for a host that says nothing."""
_REFUSED = (
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
)
"""The server's own words, and the user's to mend."""
_OPTIONS = [("grpc.enable_http_proxy", 0)]


@dataclass
class Connection:
    """What the options say."""

    address: str = ADDRESS
    run_name: str = ""
    token: str = ""
    token_file: str = ""
    ca: str = ""
    cert: str = ""
    key: str = ""
    as_json: bool = False

    @contextlib.contextmanager
    def stub(self) -> Iterator[AdminServiceStub]:
        """To call; what is refused becomes a ClickException of one line."""
        if not _listens(self.address):
            raise click.ClickException(
                f"no admin API listens at {self.address}; a run prints the address of its own when"
                " its online stage starts: give it, or that of pairloop serve, as --address"
                " HOST:PORT"
            )
        try:
            with self._channel() as channel:
                yield AdminServiceStub(channel)  # type: ignore[no-untyped-call]
        except grpc.RpcError as error:
            raise click.ClickException(self._problem(error)) from None

    def change(self, reason: str) -> dict[str, str]:
        """The fields of a new change."""
        return {
            "run": self.run_name,
            "reason": reason,
            "request_id": uuid.uuid4().hex,
            "actor": user_name(),
        }

    def _channel(self) -> grpc.Channel:
        if self.ca or self.cert:
            tls = grpc.ssl_channel_credentials(
                *(_read(path) if path else None for path in (self.ca, self.key, self.cert))
            )
            channel = grpc.secure_channel(self.address, tls, _OPTIONS)
        else:
            channel = grpc.insecure_channel(self.address, _OPTIONS)
        token = self.token or (_read(self.token_file).decode().strip() if self.token_file else "")
        return grpc.intercept_channel(channel, _Bearer(token)) if token else channel

    def _problem(self, error: grpc.RpcError) -> str:
        at = self.address
        if error.code() in _REFUSED:
            return str(error.details())
        if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"what listens at {at} does not answer; look whether it still works, then again"
        if error.code() == grpc.StatusCode.UNIMPLEMENTED:
            return f"what listens at {at} is no admin API; see the address the run printed"
        time.sleep(_CLOSING_S)
        if not _listens(at):
            return f"the run at {at} is gone; started again, its command goes on where it stood"
        return f"the admin API at {at} cannot answer: {error.details()}"


def connection_options(first: bool = False) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """May stand before the command (`first`: then the environment counts too) and after it."""

    def keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
        if value is not None:
            setattr(context.ensure_object(Connection), str(parameter.name), value)

    def option(*names: str, env: str = "", **more: Any) -> Any:
        return click.option(
            *names, expose_value=False, callback=keep, default=None,
            envvar=env if first and env else None, **more,
        )  # fmt: skip

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        for add in (
            option("--json", "as_json", is_flag=True, flag_value=True, help="Print JSON."),
            option("--key", metavar="FILE", help="Key of --cert, PEM."),
            option("--cert", metavar="FILE", help="Certificate of the caller (mTLS), PEM."),
            option("--ca", metavar="FILE", help="Who signed the server's certificate (TLS), PEM."),
            option("--token-file", metavar="FILE", env="PAIRLOOP_TOKEN_FILE", help="Has the token;"
                   " PAIRLOOP_TOKEN has it too."),
            option("--run", "run_name", metavar="ID|NAME", help="Where there are several runs."),
            option("--address", metavar="HOST:PORT", env="PAIRLOOP_ADDRESS",
                   help=f"Of the admin API ({ADDRESS})."),
        ):  # fmt: skip
            function = add(function)
        if first:  # no option: a command line is seen by every user of the machine
            function = click.option(
                "--token", expose_value=False, callback=keep, default=None, hidden=True,
                envvar="PAIRLOOP_TOKEN",
            )(function)  # fmt: skip
        return function

    return decorate


def connected(function: Callable[Concatenate[Connection, P], R]) -> Callable[P, R]:
    """A command that asks an admin API: gets the connection first, and the options for it."""

    @connection_options()
    @click.pass_context
    @wraps(function)
    def command(context: click.Context, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return function(context.ensure_object(Connection), *args, **kwargs)

    return command


class _Bearer(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):  # type: ignore[type-arg]  # no generics when it runs
    """Adds the token to each call."""

    def __init__(self, token: str) -> None:
        self._token = token

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(self._with_token(details), request)

    def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(self._with_token(details), request)

    def _with_token(self, details: Any) -> Any:
        metadata = [*(details.metadata or ()), ("authorization", f"Bearer {self._token}")]
        return details._replace(metadata=metadata)


def _listens(address: str) -> bool:
    """Whether anybody listens there; gRPC says it in no plain words."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()
    except (OSError, ValueError, OverflowError):
        return False
    return True


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise click.ClickException(f"{path} cannot be read: {error.strerror}") from None
