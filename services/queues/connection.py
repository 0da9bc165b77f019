"""Opens Redis as it is in production: one server, a primary that Sentinels name, or a cluster.

Whether a server is a node of a cluster it says itself (HELLO, which every user may ask), so the
address needs no word for that. Everything of a run has one hash tag, hence one slot: each command
and each script goes to one node whole.
"""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlencode

from redis._parsers import AsyncCommandsParser
from redis.asyncio import ConnectionPool, Redis, RedisCluster, Sentinel, SSLConnection
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.backoff import ExponentialBackoff

from services.errors import ConfigError
from services.queues.endpoint import FILES, Endpoint, Host
from services.queues.greeting import greeted
from services.queues.refusals import AwayError
from services.queues.server_check import Server
from services.queues.translate import refusals

CONNECTIONS = 32
"""Calls at a time: as many connections, to one node."""
_RETRIES = 3
_BACKOFF = ExponentialBackoff(cap=1.0, base=0.1)
_ANSWER_S = 30.0
"""Longest wait for an answer once connected: a busy disk may hold up a server that syncs to it."""

Connection = Redis | RedisCluster


async def opened(endpoint: Endpoint, timeout_s: float) -> tuple[Connection, list[Server]]:
    """A connection, and what its servers that take writes say of themselves.

    Raises UnreachableError when none answers or the password is refused, ConfigError when the
    address means another kind of server.
    """
    options = _options(endpoint)
    # Tried again here, as the library's own tries, one in another, would use the time up.
    bridged = Retry(_BACKOFF, _RETRIES, (AwayError,))  # type: ignore[arg-type]  # any will do
    host, said = await bridged.call_with_retry(
        lambda: _looked(endpoint, options, timeout_s), _nothing
    )
    if endpoint.kind == "sentinel":
        return _sentinel(endpoint, options, timeout_s), [said]
    if said.mode == "cluster":
        return await _cluster(endpoint, options, timeout_s)
    if len(endpoint.hosts) > 1:
        raise ConfigError(
            f"queues.url names several hosts, and {endpoint.shown} is no cluster: name the"
            " primary alone, or the Sentinels that know it, as redis+sentinel://"
        )
    return _server(host, endpoint, options, timeout_s), [said]


async def reconnect(connection: Connection, endpoint: Endpoint) -> None:
    """Drop every connection: behind the same names there may be other servers by now."""
    if isinstance(connection, RedisCluster):
        await connection.aclose()
        # Its nodes may have other addresses, which those of `queues.url` tell.
        known = connection.nodes_manager.startup_nodes
        for host in endpoint.hosts:
            node = ClusterNode(*host, **connection.connection_kwargs)
            known.setdefault(node.name, node)
        await connection.initialize()
    else:
        await connection.connection_pool.disconnect()


async def close(connection: Connection) -> None:
    """Close every connection."""
    await connection.aclose()
    if isinstance(connection, RedisCluster):
        # Of one that was about to look for its nodes anew, the above closes nothing.
        await connection.nodes_manager.aclose()
        await connection.nodes_manager.aclose("startup_nodes")
    elif isinstance(pool := connection.connection_pool, SentinelConnectionPool):
        await pool.sentinel_manager.aclose()


_READ_STREAMS = ("XREAD", "XREADGROUP")


class _FirstKey(AsyncCommandsParser):
    """Where a command's keys are, without asking the server: the first says the slot of all."""

    async def initialize(self, node: ClusterNode | None = None) -> None:
        """Nothing is read: a server sends some 100 kB about its commands."""

    async def get_keys(self, *args: Any) -> tuple[str, ...]:
        """Its first key; what reads streams has it after a word."""
        return (args[args.index("STREAMS") + 1 if args[0] in _READ_STREAMS else 1],)


async def _looked(
    endpoint: Endpoint, options: dict[str, Any], timeout_s: float
) -> tuple[Host, Server]:
    """The first host that answers, and what the server says of itself: once, then closed."""
    if endpoint.kind == "sentinel":
        primary = _sentinel(endpoint, options, timeout_s, retries=0)
        return endpoint.hosts[0], await _asked(primary, endpoint)
    *others, last = endpoint.hosts
    share_s = timeout_s / len(endpoint.hosts)
    for host in others:
        with suppress(AwayError):
            return host, await _asked(_server(host, endpoint, options, share_s, 0), endpoint)
    return last, await _asked(_server(last, endpoint, options, share_s, 0), endpoint)


async def _asked(connection: Redis, endpoint: Endpoint) -> Server:
    try:
        with refusals(endpoint.shown):
            said = await greeted(connection.execute_command, endpoint.shown)
            if said.mode == "cluster":
                # Of what it is refused, the cluster's own client says something else.
                await connection.execute_command("CLUSTER SLOTS")  # type: ignore[no-untyped-call]
            return said
    finally:
        await close(connection)


async def _nothing(error: Exception) -> None:
    """Between two tries."""


def _server(
    host: Host,
    endpoint: Endpoint,
    options: dict[str, Any],
    timeout_s: float,
    retries: int = _RETRIES,
) -> Redis:
    tls: dict[str, Any] = {"connection_class": SSLConnection} if endpoint.tls else {}
    pool = ConnectionPool(
        host=host[0],
        port=host[1],
        db=endpoint.db,
        max_connections=CONNECTIONS,
        **tls,
        **_login(endpoint.user, endpoint.password),
        **_common(timeout_s, retries),
        **options,
    )
    return Redis.from_pool(pool)


def _sentinel(
    endpoint: Endpoint, options: dict[str, Any], timeout_s: float, retries: int = _RETRIES
) -> Redis:
    options = dict(options)
    login = _login(options.pop("sentinel_username", None), options.pop("sentinel_password", None))
    tls: dict[str, Any] = {"ssl": True} if endpoint.tls else {}
    sentinels = Sentinel(  # type: ignore[no-untyped-call]
        endpoint.hosts,
        # One that does not answer is not asked again: the others are.
        sentinel_kwargs=options | tls | login | _common(timeout_s, retries=0),
    )
    return cast(
        Redis,
        sentinels.master_for(
            endpoint.service,
            db=endpoint.db,
            max_connections=CONNECTIONS,
            **_login(endpoint.user, endpoint.password),
            **_common(timeout_s, retries),
            **options,
            **tls,
        ),
    )


async def _cluster(
    endpoint: Endpoint, options: dict[str, Any], timeout_s: float
) -> tuple[RedisCluster, list[Server]]:
    cluster = RedisCluster(
        startup_nodes=[ClusterNode(*host) for host in endpoint.hosts],
        # A run needs one slot: what becomes of the others is not its concern.
        require_full_coverage=False,
        # Above the number of calls: the client asks for the nodes meanwhile.
        max_connections=2 * CONNECTIONS,
        ssl=endpoint.tls,
        **_login(endpoint.user, endpoint.password),
        **_common(timeout_s, _RETRIES),
        **options,
    )
    cluster.commands_parser = _FirstKey()
    try:
        with refusals(endpoint.shown):
            await cluster.initialize()
            asked = [
                greeted(node.execute_command, f"{node.host}:{node.port}")
                for node in cluster.get_primaries()
            ]
            return cluster, list(await asyncio.gather(*asked))
    except BaseException:
        await close(cluster)
        raise


def _options(endpoint: Endpoint) -> dict[str, Any]:
    """The options as redis-py takes them. Raises ConfigError."""
    for name in FILES:
        if name in endpoint.options and not Path(endpoint.options[name]).is_file():
            raise ConfigError(
                f"queues.url: {name} is {endpoint.options[name]}, where no file is; it must lie"
                " there on every node"
            )
    try:
        return dict(parse_url(f"redis://?{urlencode(endpoint.options)}"))
    except ValueError as error:
        raise ConfigError(f"queues.url: {error}") from None


def _login(user: str | None, password: str | None) -> dict[str, Any]:
    given = {"username": user, "password": password}
    return {name: value for name, value in given.items() if value is not None}


def _common(timeout_s: float, retries: int) -> dict[str, Any]:
    return {
        "protocol": 2,
        "socket_timeout": _ANSWER_S,
        "socket_connect_timeout": timeout_s,
        "socket_keepalive": True,
        "health_check_interval": 30,
        # Bridges a server's restart. A retried script is harmless: each is idempotent.
        "retry": Retry(_BACKOFF, retries),
    }
