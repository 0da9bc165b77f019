"""Which Redis a run uses."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.queues.embedded import EmbeddedRedis
from services.queues.settings import QueueSettings


@contextmanager
def redis_address(settings: QueueSettings, folder: Path | str) -> Iterator[str]:
    """`queues.url`, or REDIS_URL, or that of an embedded server on `folder` for the while.

    Raises UnreachableError when the embedded server does not come up.
    """
    url = settings.configured_url
    if url:
        yield url
        return
    server = EmbeddedRedis.start(folder, settings.fsync)
    try:
        yield server.url
    finally:
        server.stop()
