"""What an entry of a stream carries: the payload itself or, of a large one, where it lies.

    XADD ... id <id> episode <n> payload <bytes>      up to `queues.inline_bytes`
    XADD ... id <id> episode <n> ref <PayloadRef>     above: a file, and its checksum

So what Redis holds of a run does not hang on how much its engines say. A file is there, on disk,
before Redis hears of it, and named by what is in it: whatever is done twice writes the same file.
"""

import asyncio
import hashlib
import logging
import re
from collections.abc import Mapping
from functools import partial
from typing import Protocol

from pairloop.data.v1.payload_pb2 import PayloadRef
from services.errors import DataError, ResourceError
from services.full_disk import awaited_room
from services.queues.settings import QueueSettings

INLINE, OUTSIDE = "payload", "ref"
"""The field of an entry that has its payload, or a PayloadRef: its last."""
_log = logging.getLogger(__name__)
_NAMED = 40
"""Characters of a prompt's id in the name of a file."""


def payload_of(fields: Mapping[bytes, bytes]) -> tuple[str, bytes]:
    """The field of an entry that leads to its payload, and its value."""
    field = INLINE if INLINE.encode() in fields else OUTSIDE
    return field, fields[field.encode()]


class PayloadStore(Protocol):
    """Where large payloads lie; every process of the run reaches it."""

    def keep(self, path: str, payload: bytes) -> None:
        """Returns once it would outlive a loss of power. Raises OSError."""

    def read(self, path: str) -> bytes:
        """What was kept there. Raises OSError."""

    def forget(self, episode: int) -> None:
        """Redis names nothing any more of this episode and those before it."""

    def place(self, path: str) -> str:
        """As a person finds it."""


class Payloads:
    """Of one run. `store`: None for a tool that meets small ones alone."""

    def __init__(self, store: PayloadStore | None, settings: QueueSettings) -> None:
        self._store = store
        self._writes = store is not None and settings.payloads == "folder"
        self._inline_bytes, self._patience_s = settings.inline_bytes, settings.outage_s

    async def put(self, episode: int, prompt_id: str, payload: bytes) -> tuple[str, bytes]:
        """The last field of an entry, and its value.

        Waits for a full disk as for Redis. Raises ResourceError when it cannot be written.
        """
        if self._store is None or not self._writes or len(payload) <= self._inline_bytes:
            return INLINE, payload
        digest = hashlib.sha256(payload)
        ref = PayloadRef(
            path=f"{episode:05d}/{_named(prompt_id)}-{digest.hexdigest()}",
            sha256=digest.digest(),
            size=len(payload),
        )
        await self._keep(self._store, ref.path, payload)
        return OUTSIDE, ref.SerializeToString()

    async def get(self, field: str, value: bytes) -> bytes:
        """The payload of an entry. Raises DataError for a file that is missing or damaged."""
        if field == INLINE:
            return value
        ref = PayloadRef.FromString(value)
        if self._store is None:
            raise DataError(f"payload {ref.path} lies outside of Redis: name the run's folder")
        try:
            payload = await asyncio.to_thread(self._store.read, ref.path)
        except OSError as error:
            raise self._lost(ref, f"cannot be read ({error.strerror})") from error
        if len(payload) != ref.size or hashlib.sha256(payload).digest() != ref.sha256:
            raise self._lost(ref, f"is damaged ({len(payload)} bytes of {ref.size})")
        return payload

    async def forget(self, episode: int) -> None:
        """As PayloadStore.forget."""
        if self._store is not None:
            await asyncio.to_thread(self._store.forget, episode)

    async def _keep(self, store: PayloadStore, path: str, payload: bytes) -> None:
        keep = partial(asyncio.to_thread, store.keep, path, payload)
        try:
            await awaited_room(keep, "the payloads'", _log.warning, self._patience_s)
        except OSError as error:
            raise ResourceError(
                f"{store.place(path)} cannot be written ({error.strerror}); mend that, then the"
                " same command goes on"
            ) from error

    def _lost(self, ref: PayloadRef, what: str) -> DataError:
        place = self._store.place(ref.path) if self._store else ref.path
        return DataError(
            f"payload {place} {what}; bring it back, let every node see its folder, or begin the"
            " stage anew with --fresh"
        )


def _named(prompt_id: str) -> str:
    return re.sub(r"[^\w.-]", "_", prompt_id.rsplit("/", 1)[-1])[:_NAMED]
