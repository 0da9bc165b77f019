"""What a process holds of the queues: a lease on each item, renewed while the process lives.

A renewal says that the process works, not that it is quick: an item that takes an hour is taken
from nobody. One whose process is gone, or stands still, runs out after `reclaim_idle_s`.
"""

import asyncio
import contextlib

from services.errors import UnreachableError
from services.queues.client import Client
from services.queues.items import Item, StreamName
from services.queues.keys import GROUP, Keys

_RENEWALS = 3.0
"""A lease is renewed so many times in the time that it lasts."""
_LEAST_S = 0.05


class Leases:
    """The items of one connection, by stream and entry."""

    def __init__(self, client: Client, keys: Keys, lasts_s: float) -> None:
        self._client, self._keys = client, keys
        self._every_s = max(_LEAST_S, lasts_s / _RENEWALS)
        self._held: dict[StreamName, dict[str, str]] = {"prompts": {}, "rollouts": {}}
        self._renewing: asyncio.Task[None] | None = None

    def entries(self, stream: StreamName, consumer: str) -> list[str]:
        """What a consumer holds of a stream."""
        return [entry for entry, holder in self._held[stream].items() if holder == consumer]

    def hold(self, stream: StreamName, item: Item) -> None:
        """Taken now; renewed from now on."""
        self._held[stream][item.entry_id] = item.consumer
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.get_running_loop().create_task(self._renew())

    def let_go(self, stream: StreamName, item: Item) -> None:
        """Finished, or given back."""
        self._held[stream].pop(item.entry_id, None)

    async def close(self) -> None:
        """Renew nothing any more: what is held runs out."""
        if self._renewing is not None:
            self._renewing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._renewing

    async def _renew(self) -> None:
        while any(self._held.values()):
            await asyncio.sleep(self._every_s)
            # A server that is away for longer than a lease lasts has nobody who takes it over.
            with contextlib.suppress(UnreachableError):
                for stream, held in self._held.items():
                    await self._renew_stream(stream, dict(held))

    async def _renew_stream(self, stream: StreamName, held: dict[str, str]) -> None:
        if not held:
            return
        pairs = [text for entry in held.items() for text in entry]
        for lost in await self._client.script(
            "renew", [self._keys.stream(stream), self._keys.fenced], [GROUP, *pairs]
        ):
            self._held[stream].pop(lost.decode(), None)
