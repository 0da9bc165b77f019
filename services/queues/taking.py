"""How items get into hands and out of them again: taken, taken over, failed.

new, or abandoned -> held, with its payload -> committed
                                            -> failed: waits for another try, or a dead letter
"""

import time
from collections.abc import Sequence
from dataclasses import replace

from services.errors import DataError, one_line
from services.queues.client import Client, Fields
from services.queues.items import Item, StreamName
from services.queues.keys import GROUP, Keys
from services.queues.leases import Leases
from services.queues.looks import Looks
from services.queues.payloads import Payloads, payload_of
from services.queues.settings import QueueSettings

_SLICE_S = 1.0
"""Longest single wait for new items; between two, abandoned and failed ones are looked for."""
_CAUSE = 1000
"""Characters of a failure that stay with its item."""

_Taken = tuple[Item, str]
"""An item whose payload is still as its entry has it, in this field."""


class Taking:
    """Of one connection."""

    def __init__(
        self,
        client: Client,
        keys: Keys,
        settings: QueueSettings,
        leases: Leases,
        payloads: Payloads,
    ) -> None:
        self._client, self._keys, self._settings = client, keys, settings
        self._leases, self._payloads = leases, payloads
        self._looks = Looks(settings.reclaim_idle_s)
        self._idle_ms = int(settings.reclaim_idle_s * 1000)

    async def take(
        self, stream: StreamName, consumer: str, count: int, block_s: float
    ) -> list[Item]:
        """As RunQueues.take."""
        deadline = time.monotonic() + block_s
        while True:
            taken = list[_Taken]()
            if self._looks.due(stream, consumer):
                taken = await self._reclaim(stream, consumer, count)
                self._looks.looked(stream, consumer, len(taken))
            wait = min(deadline - time.monotonic(), _SLICE_S)
            if taken and len(taken) < count:
                taken += await self._read_new(stream, consumer, count - len(taken), 0.0)
            elif not taken and wait > 0.0:
                taken = await self._read_new(stream, consumer, count, wait)
            elif not taken:
                taken = await self._look(stream, consumer, count)
            items = await self._with_payloads(stream, taken)
            if items or time.monotonic() >= deadline:
                return items

    async def fail(
        self, stream: StreamName, item: Item, error: str, allowed: int | None = None
    ) -> bool:
        """As RunQueues.fail; `allowed` failures, 0 for an item that is to be tried no more."""
        keys, settings = self._keys, self._settings
        allowed = settings.max_failures if allowed is None else allowed
        reply = await self._client.script(
            "fail",
            [keys.stream(stream), keys.dead, keys.tries(stream), *keys.account(item.episode)],
            [GROUP, item.entry_id, item.consumer, allowed, item.prompt_id, item.episode, stream,
             error, self._idle_ms, int(settings.retry_s * 1000)],
        )  # fmt: skip
        self._leases.let_go(stream, item)
        self._looks.soon(stream, item.consumer)
        return bool(reply)

    async def _read_new(
        self, stream: StreamName, consumer: str, count: int, wait_s: float
    ) -> list[_Taken]:
        entries = await self._client.read_group(
            self._keys.stream(stream), GROUP, consumer, count, int(wait_s * 1000)
        )
        return [_taken(entry, fields, consumer) for entry, fields in entries]

    async def _look(self, stream: StreamName, consumer: str, count: int) -> list[_Taken]:
        """What was given back, else what is new; one call where nothing was given back."""
        given_back, found = await self._client.script(
            "take",
            [self._keys.stream(stream), self._keys.fenced],
            [GROUP, consumer, count, self._idle_ms],
        )
        if given_back:
            taken = await self._reclaim(stream, consumer, count)
            return taken or await self._read_new(stream, consumer, count, 0.0)
        return [
            _taken(entry.decode(), dict(zip(flat[::2], flat[1::2], strict=True)), consumer)
            for entry, flat in found
        ]

    async def _reclaim(self, stream: StreamName, consumer: str, count: int) -> list[_Taken]:
        reply = await self._client.script(
            "reclaim",
            [self._keys.stream(stream), self._keys.tries(stream), self._keys.fenced],
            [GROUP, consumer, self._idle_ms, count, *self._leases.entries(stream, consumer)],
        )
        taken = list[_Taken]()
        for entry, id_, episode, field, value, deaths, holder in reply:
            item = Item(entry.decode(), id_.decode(), int(episode), value, consumer, deaths)
            if deaths < self._settings.max_deaths:
                taken.append((item, field.decode()))
            else:
                error = (
                    f"{deaths} workers ended while they held it, the last was {holder.decode()}: "
                    "it seems to end them"
                )
                await self.fail(stream, item, error, allowed=0)
        if reply and not taken:  # those that had to wait for the one that is buried now
            return await self._reclaim(stream, consumer, count)
        return taken

    async def _with_payloads(self, stream: StreamName, taken: Sequence[_Taken]) -> list[Item]:
        """Held from now on; to one whose payload is lost that is a failure."""
        items = list[Item]()
        for item, _ in taken:
            self._leases.hold(stream, item)
        try:
            for item, field in taken:
                try:
                    payload = await self._payloads.get(field, item.payload)
                    items.append(replace(item, payload=payload))
                except DataError as error:
                    await self.fail(stream, item, one_line(error, _CAUSE))
        except BaseException:  # nobody gets them
            for item, _ in taken:
                self._leases.let_go(stream, item)
            raise
        return items


def _taken(entry: str, fields: Fields, consumer: str) -> _Taken:
    field, value = payload_of(fields)
    id_, episode = fields[b"id"].decode(), int(fields[b"episode"])
    return Item(entry, id_, episode, value, consumer), field
