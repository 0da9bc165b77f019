"""The adapter of redis-py: the one file that touches it.

Everything else sees `Client`: a few commands with plain types, and connection errors as
UnreachableError whose text never holds the password.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, cast
from urllib.parse import urlsplit

import redis
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.retry import Retry as BlockingRetry

from services.errors import ConfigError, UnreachableError
from services.queues.refusals import AwayError, refused, silent

Fields = dict[bytes, bytes]
Entry = tuple[str, Fields]

_OLDEST = (6, 2)
_RETRIES = 3
_ANSWER_S = 30.0
"""Longest wait for an answer once connected: a busy disk may hold up a server that syncs to it."""
_CONNECTIONS = 32
_AGAIN_S = 0.5
"""Between two tries while the server is away."""


@dataclass(frozen=True)
class Patience:
    """How long a call waits for a server that went away."""

    outage_s: float = 0.0
    tell: Callable[[str], None] = lambda text: None
    """Told once when it begins to wait, and once when the server is back."""


class Client:
    """A connection pool to one server, bound to the event loop it was connected on."""

    def __init__(
        self,
        connection: "Redis",
        address: str,
        epoch: tuple[str, int],
        patience: Patience = Patience(),
    ) -> None:
        self._redis = connection
        self._epoch_key, self._epoch = epoch
        self._patience = patience
        self._address = address
        self._scripts: dict[str, Callable[..., Awaitable[Any]]] = {}

    async def script(
        self, name: str, keys: Sequence[str], args: Sequence[str | bytes | int] = ()
    ) -> Any:
        """Run `lua/<name>.lua`; the server gets it again by itself after a restart.

        Raises ReplacedError when this client's epoch is not the run's newest.
        """
        if name not in self._scripts:
            self._scripts[name] = self._redis.register_script(_source(name))
        script = self._scripts[name]
        given = {"keys": [self._epoch_key, *keys], "args": [self._epoch, *args]}
        return await self._ask(lambda: script(**given))

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
                return await self._redis.execute_command(*words)  # type: ignore[no-untyped-call]
            except redis.ResponseError as error:
                if "NOGROUP" not in str(error):
                    raise
                await self._make_group(stream, group)
                return None

        reply = await self._ask(read)
        return _entries(reply[0][1]) if reply else []

    async def read(self, stream: str, after: str, count: int) -> list[Entry]:
        """Up to `count` entries after an entry id; "-" begins at the first."""
        start = after if after == "-" else f"({after}"
        return _entries(await self._ask(lambda: self._redis.xrange(stream, min=start, count=count)))

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
        await self._redis.aclose()

    async def _make_group(self, stream: str, group: str) -> None:
        try:
            await self._redis.xgroup_create(stream, group, id="0", mkstream=True)
        except redis.ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    async def _ask(self, call: Callable[[], Any]) -> Any:
        """The answer; while the server is away, again and again until the patience is over.

        Nothing here does harm when it is done twice.
        """
        began = 0.0
        while True:
            try:
                with _refusals(self._address):
                    answer = await call()
            except AwayError as error:
                now = time.monotonic()
                if not began:
                    began = now
                    self._patience.tell(f"{error.what}; waiting until it is back")
                if now - began >= self._patience.outage_s:
                    raise
                # Behind its name there may be another server by now.
                with suppress(redis.RedisError, OSError):
                    await self._redis.connection_pool.disconnect()
                await asyncio.sleep(_AGAIN_S)
            else:
                if began:
                    away = time.monotonic() - began
                    self._patience.tell(f"Redis is back after {away:.0f} s")
                return answer


async def connect(
    url: str, timeout_s: float, epoch: tuple[str, int], patience: Patience = Patience()
) -> Client:
    """A client of the server at a redis:// or rediss:// address, for one run.

    `epoch`: the key that holds the run's newest, and the caller's; 0 is never refused. `patience`:
    of every later call, when the server is away.

    Raises UnreachableError when it does not answer in `timeout_s`, refuses the password, or is
    older than 6.2; ConfigError when the address is malformed.
    """
    address = address_of(url)
    pool: BlockingConnectionPool = BlockingConnectionPool.from_url(
        url,
        # More callers than this wait for each other, which a plain pool refuses.
        max_connections=_CONNECTIONS,
        timeout=_ANSWER_S,
        protocol=2,
        socket_timeout=_ANSWER_S,
        socket_connect_timeout=timeout_s,
        socket_keepalive=True,
        health_check_interval=30,
        # Bridges a server's restart. A retried script is harmless: each is idempotent.
        retry=Retry(ExponentialBackoff(cap=1.0, base=0.1), _RETRIES),
    )
    connection = Redis.from_pool(pool)
    try:
        async with asyncio.timeout(timeout_s):
            with _refusals(address):
                info = await connection.info("server")
    except TimeoutError as error:
        await connection.aclose()
        raise silent(address) from error
    except UnreachableError:
        await connection.aclose()
        raise
    version = str(info["redis_version"])
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST:
        await connection.aclose()
        raise UnreachableError(f"Redis at {address} is {version}: 6.2 or newer is needed")
    return Client(connection, address, epoch, patience)


def address_of(url: str) -> str:
    """The address without user and password, to be shown. Raises ConfigError."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if parts.scheme not in ("redis", "rediss") or not host:
        # Nothing of the address is shown: a mistyped one may hold the password anywhere.
        raise ConfigError(
            "queues.url is no Redis address: write redis://host:port or "
            "rediss://:password@host:port (characters like / or # in a password as %2F, %23)"
        ) from None
    return f"{parts.scheme}://{host}:{port or 6379}{parts.path}"


def answers(url: str, timeout_s: float) -> bool:
    """Whether a server answers PING now; False also while it still loads its data."""
    with _blocking(url, timeout_s) as connection:
        try:
            return bool(connection.ping())
        except (redis.ConnectionError, redis.TimeoutError):
            return False


def shut_down(url: str, timeout_s: float) -> None:
    """Ask a server, if one answers there, to write its data and end; it may take a while."""
    with _blocking(url, timeout_s) as connection, suppress(redis.RedisError):
        # Its process is what tells whether this worked: see embedded.py.
        connection.shutdown(nosave=True)


def _blocking(url: str, timeout_s: float) -> redis.Redis:
    return redis.Redis.from_url(
        url, protocol=2, socket_timeout=timeout_s, retry=BlockingRetry(NoBackoff(), 0)
    )


@contextmanager
def _refusals(address: str) -> Iterator[None]:
    """redis-py's errors as ours, and the cancellations that it loses.

    It sends by `asyncio.wait_for`, which before Python 3.12 returns when the command is sent at
    the moment of a cancellation, and the cancellation is gone: a worker would work on.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    try:
        yield
        if task and task.cancelling() > before:
            raise asyncio.CancelledError
    except redis.AuthenticationError as error:
        raise UnreachableError(
            f"Redis at {address} refused the user or password: check queues.url or REDIS_URL"
        ) from error
    except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
        raise silent(address) from error
    except redis.ResponseError as error:
        if known := refused(str(error), address):
            raise known from error
        raise


def _source(name: str) -> str:
    folder = files("services.queues") / "lua"
    common, script, expiry = (
        (folder / f"{part}.lua").read_text() for part in ("common", name, "expiry")
    )
    return f"{common}local function work()\n{script}end\n{expiry}"


def _entries(reply: Any) -> list[Entry]:
    return [(entry.decode(), fields) for entry, fields in reply]
