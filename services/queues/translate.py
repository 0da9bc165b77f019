"""redis-py's errors as ours, and the cancellations that it loses."""

import asyncio
import ssl
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import redis
from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import RedisClusterException

from services.errors import UnreachableError
from services.queues.refusals import AwayError, distrusted, refused, silent


@contextmanager
def refusals(address: str, script: str = "") -> Iterator[None]:
    """Raise what redis-py raises as one of our errors. `script`: the source of the one that runs.

    redis-py sends by `asyncio.wait_for`, which before Python 3.12 returns when the command is sent
    at the moment of a cancellation, and the cancellation is gone: a worker would work on.
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
    except MasterNotFoundError as error:
        # The library keeps the text alone of what each Sentinel answered.
        if "AuthenticationError" in str(error):
            raise UnreachableError(
                f"a Sentinel of {address} refused the user or password: its own are the options"
                " sentinel_username and sentinel_password of queues.url"
            ) from error
        raise AwayError(
            f"no Sentinel of {address} knows a primary that lives",
            "check the hosts and the service in queues.url",
        ) from error
    except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
        if (fault := _of_tls(error)) is not None:
            raise distrusted(address, str(fault)) from error
        raise silent(address) from error
    except AttributeError as error:
        if not _torn(error):
            raise
        raise silent(address) from error
    except RedisClusterException as error:
        raise AwayError(
            f"the cluster of {address} cannot be asked now ({error})",
            "look at its nodes, or correct queues.url or REDIS_URL",
        ) from error
    except redis.ResponseError as error:
        # The library takes the words that it knows off.
        if known := refused(f"{error.status_code or ''} {error}".strip(), address, script):
            raise known from error
        raise


def _torn(error: AttributeError) -> bool:
    """Whether redis-py misses the stream of a connection that another call closed meanwhile."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return error.obj is None and frames[-1][0].f_globals["__name__"].startswith("redis.")


def _of_tls(error: BaseException) -> ssl.SSLError | None:
    """The failure of TLS that an error comes from."""
    while not isinstance(error, ssl.SSLError):
        cause = error.__cause__ or error.__context__
        if cause is None:
            return None
        error = cause
    return error
