"""Asks a server what it is.

HELLO is for everybody; INFO may be forbidden to an ACL user, CONFIG is so on managed servers.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import redis

from services.errors import ConfigError, UnreachableError
from services.queues.server_check import Server, require


async def greeted(command: Callable[..., Awaitable[Any]], address: str) -> Server:
    """Ask it by redis-py's `execute_command`. Raises as `require`."""
    try:
        said = await command("HELLO", "2")
    except redis.ResponseError as error:
        if "SELECT" in str(error) or "DB index" in str(error):
            raise ConfigError(
                f"queues.url names a database that is not there: {address} says {error}; leave it"
                " out"
            ) from error
        if "unknown command" in str(error):
            raise UnreachableError(
                f"what answers at {address} does not know HELLO: Redis 6.2 or newer is needed"
            ) from error
        raise
    hello = dict(zip(said[::2], said[1::2], strict=True))
    info = await _allowed(command("INFO"))
    snapshots = None
    if info is not None and not info.get("aof_enabled"):
        snapshots = (await _allowed(command("CONFIG GET", "save")) or {}).get("save")
    server = Server(address, hello[b"version"].decode(), hello[b"mode"].decode(), info, snapshots)
    require(server)
    return server


async def _allowed(asked: Awaitable[Any]) -> Any:
    """The answer; None where the server refuses to give one."""
    try:
        return await asked
    except redis.ResponseError:
        return None
