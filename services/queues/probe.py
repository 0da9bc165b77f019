"""Short questions to a server of our own, asked before and after its life: see embedded.py."""

from contextlib import suppress

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry


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
        url, protocol=2, socket_timeout=timeout_s, retry=Retry(NoBackoff(), 0)
    )
