"""The adapter of redis-py.

Everything else sees `Client`: a few commands with plain types, and connection errors as
UnreachableError whose text never holds the password. What kind of Redis is behind it,
connection.py alone knows.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, cast

import redis
from redis.exceptions import RedisClusterException

from services.queues.connection import CONNECTIONS, Connection, close, opened, reconnect
from services.queues.endpoint import Endpoint, endpoint_of
from services.queues.refusals import AwayError, silent
from services.queues.server_check import Server, doubts
from services.queues.translate import refusals

Fields = dict[bytes, bytes]
Entry = tuple[str, Fields]

_AGAIN_S = 0.5
"""Between two tries while the server is away."""


@dataclass(frozen=True)
class Patience:
    """How long a call waits for a server that went away."""

    outage_s: float = 0.0
    tell: Callable[[str], None] = lambda text: None
    """Told once when it begins to wait, and once when the server is back."""


class Client:
    """Connections to the Redis of one run, bound to the event loop they were made on."""

    def __init__(
        self,
        connection: Connection,
        endpoint: Endpoint,
        epoch: tuple[str, int],
        patience: Patience = Patience(),
    ) -> None:
        self._redis = connection
        self._epoch_key, self._epoch = epoch
        self._patience = patience
        self._endpoint = endpoint
        # More callers than this wait for each other, which redis-py refuses.
        self._places = asyncio.Semaphore(CONNECTIONS)
        self._scripts: dict[str, Callable[..., Awaitable[Any]]] = {}

    async def script(
        self, name: str, keys: Sequence[str], args: Sequence[str | bytes | int] = ()
    ) -> Any:
        """Run `lua/<name>.lua`; the server gets it again by itself after a restart.

        Raises ReplacedError when this client's epoch is not the run's newest.
        """
        source = _source(name)
        if name not in self._scripts:
            self._scripts[name] = self._redis.register_script(source)
        script = self._scripts[name]
        given = {"keys": [self._epoch_key, *keys], "args": [self._epoch, *args]}
        return await self._ask(lambda: script(**given), source)

    async def ensure_group(self, stream: str, group: str) -> None:
        """Make a stream and a group that reads it from its first entry, unless it is there."""
        await self._ask(lambda: self._make_group(stream, group))

    async def consumers(self, stream: str, group: str) -> list[str]:
        """The names of those that took something of a group."""
        found = await self._ask(lambda: self._redis.xinfo_consumers(stream, group))
        return [each["name"].decode() for each in found]

    async def read_group(
        self, stream: str, group: str, consumer: str, count: int, block_ms: int
    ) -> list[Entry]:
        """New entries of a stream; waits up to `block_ms` for the first, 0 does not wait.

        A group that the server lost is made again.
        """
        block = ("BLOCK", block_ms) if block_ms > 0 else ()
        words = (
            "XREADGROUP", "GROUP", group, consumer, "COUNT", count, *block, "STREAMS", stream, ">",
        )  # fmt: skip

        async def read() -> Any:
            try:
                return await self._redis.execute_command(*words)
            except redis.ResponseError as error:
                if "NOGROUP" not in str(error):
                    raise
                await self._make_group(stream, group)
                return None

        reply = await self._ask(read)
        return _entries(reply[0][1]) if reply else []

    async def newest(self, stream: str, after: str, seconds: float) -> str:
        """The id of a stream's last entry, once that is after another; "" past so many seconds."""
        words = ("XREAD", "BLOCK", max(1, int(seconds * 1000)), "STREAMS", stream, after)
        reply = await self._ask(lambda: self._redis.execute_command(*words))
        return reply[0][1][-1][0].decode() if reply else ""

    async def read(self, stream: str, after: str, count: int) -> list[Entry]:
        """Up to `count` entries after an entry id; "-" begins at the first."""
        start = after if after == "-" else f"({after}"
        return _entries(await self._ask(lambda: self._redis.xrange(stream, min=start, count=count)))

    async def read_back(self, stream: str, before: str, count: int) -> list[Entry]:
        """Up to `count` entries before an entry id, the latest first; "+" begins at the last."""
        end = before if before == "+" else f"({before}"
        return _entries(
            await self._ask(lambda: self._redis.xrevrange(stream, max=end, count=count))
        )

    async def get(self, key: str) -> bytes | None:
        """The value of a key."""
        return cast("bytes | None", await self._ask(lambda: self._redis.get(key)))

    async def field(self, key: str, field: str) -> bytes | None:
        """One field of a hash."""
        return cast("bytes | None", await self._ask(lambda: self._redis.hget(key, field)))

    async def hashes(self, keys: Sequence[str]) -> list[Fields]:
        """Every field of some hashes, in one round trip; {} for a key that is not there."""
        if not keys:
            return []

        async def read() -> Any:
            async with self._redis.pipeline(transaction=False) as pipe:
                for key in keys:
                    pipe.hgetall(key)
                return await pipe.execute()

        return cast(list[Fields], await self._ask(read))

    async def close(self) -> None:
        """Close the connections."""
        await close(self._redis)

    async def _make_group(self, stream: str, group: str) -> None:
        try:
            await self._redis.xgroup_create(stream, group, id="0", mkstream=True)
        except redis.ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    async def _ask(self, call: Callable[[], Any], script: str = "") -> Any:
        """The answer; while the server is away, again and again until the patience is over.

        Nothing here does harm when it is done twice.
        """
        began = 0.0
        while True:
            try:
                with refusals(self._endpoint.shown, script):
                    async with self._places:
                        answer = await call()
            except AwayError as error:
                now = time.monotonic()
                if not began:
                    began = now
                    self._patience.tell(f"{error.what}; waiting until it is back")
                if now - began >= self._patience.outage_s:
                    raise
                # Behind its name there may be another server by now.
                with suppress(redis.RedisError, RedisClusterException, OSError):
                    await reconnect(self._redis, self._endpoint)
                await asyncio.sleep(_AGAIN_S)
            else:
                if began:
                    away = time.monotonic() - began
                    self._patience.tell(f"Redis is back after {away:.0f} s")
                return answer


async def connect(
    url: str,
    timeout_s: float,
    epoch: tuple[str, int],
    patience: Patience = Patience(),
    joining: bool = False,
) -> Client:
    """A client of the Redis at an address (see endpoint.py), for one run.

    `epoch`: the key that holds the run's newest, and the caller's; 0 is never refused. `patience`:
    of every later call, when the server is away. `joining`: of this one as well, as the run is up.

    Raises UnreachableError when it does not answer in `timeout_s`, refuses the password, or is
    older than 6.2; ConfigError when the address is malformed, or the server would lose keys.
    """
    endpoint = endpoint_of(url)
    until = time.monotonic() + (patience.outage_s if joining else 0.0)
    while True:
        try:
            connection, _ = await _opened(endpoint, timeout_s)
            return Client(connection, endpoint, epoch, patience)
        except AwayError:
            if time.monotonic() >= until:
                raise
            await asyncio.sleep(_AGAIN_S)


async def look(url: str, timeout_s: float) -> list[str]:
    """Connect once, as `connect` does; what is to be warned of, a line each."""
    connection, servers = await _opened(endpoint_of(url), timeout_s)
    await close(connection)
    return doubts(servers)


async def _opened(endpoint: Endpoint, timeout_s: float) -> tuple[Connection, list[Server]]:
    try:
        async with asyncio.timeout(timeout_s):
            return await opened(endpoint, timeout_s)
    except TimeoutError as error:
        raise silent(endpoint.shown) from error


@cache
def _source(name: str) -> str:
    folder = files("services.queues") / "lua"
    common, script, expiry = (
        (folder / f"{part}.lua").read_text() for part in ("common", name, "expiry")
    )
    return f"{common}local function work()\n{script}end\n{expiry}"


def _entries(reply: Any) -> list[Entry]:
    return [(entry.decode(), fields) for entry, fields in reply]
