"""The commits of one connection: those that come while one is on its way go together in the next.

None waits for company: the first goes at once. Each is exactly once of its own
(lua/commit.lua), whatever becomes of its neighbours.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from services.queues.client import Client
from services.queues.items import Item, StreamName
from services.queues.keys import GROUP, Keys
from services.queues.refusals import fenced

_MOST = 64
_MOST_BYTES = 4 << 20
"""In one script: the server does nothing else meanwhile."""
_FENCED = -1

Event = tuple[str, str]
"""Kind and detail, for the ledger."""
_Kind = tuple[StreamName, int]
"""What goes in one script: the keys are the stream's and the episode's."""


@dataclass(frozen=True)
class _Waiting:
    item: Item
    output: tuple[str, bytes]
    events: Sequence[Event]
    done: "asyncio.Future[bool]"
    size: int
    """Bytes of the output."""

    def end(self, outcome: int) -> None:
        """What the script says of it; where nobody waits for it any more, nothing."""
        if outcome == _FENCED:
            self.fail(fenced())
        elif not self.done.done():
            self.done.set_result(bool(outcome))

    def fail(self, error: Exception) -> None:
        """The same of an error."""
        if not self.done.done():
            self.done.set_exception(error)

    def args(self) -> list[str | bytes | int]:
        item = self.item
        events = [text for event in self.events for text in event]
        named = [item.entry_id, item.consumer, item.prompt_id]
        return [*named, *self.output, len(self.events), *events]


class Commits:
    """For use on one event loop."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client, self._keys = client, keys
        self._waiting: dict[_Kind, list[_Waiting]] = defaultdict(list)
        self._sending: asyncio.Task[None] | None = None

    async def commit(
        self, stream: StreamName, item: Item, output: tuple[str, bytes], events: Sequence[Event]
    ) -> bool:
        """Finish an item: False when that was done before.

        `output`: field and value of what it gives (payloads.py); a field of "" for nothing.

        Raises ReplacedError for a consumer that was taken for dead.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[bool] = loop.create_future()
        self._waiting[stream, item.episode].append(
            _Waiting(item, output, events, done, len(output[1]))
        )
        if self._sending is None or self._sending.done():
            self._sending = loop.create_task(self._send())
        return await done

    async def close(self) -> None:
        """Send nothing any more: what waits is cancelled."""
        if self._sending is not None:
            self._sending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sending
        for waiting in self._waiting.values():
            for each in waiting:
                each.done.cancel()

    async def _send(self) -> None:
        while self._waiting:
            kind = next(iter(self._waiting))
            batch = _batch(self._waiting[kind])
            if not self._waiting[kind]:
                del self._waiting[kind]
            try:
                for each, outcome in zip(batch, await self._script(kind, batch), strict=True):
                    each.end(outcome)
            except asyncio.CancelledError:
                for each in batch:
                    each.done.cancel()
                raise
            except Exception as error:  # noqa: BLE001 - whoever waits gets it
                for each in batch:
                    each.fail(error)

    async def _script(self, kind: _Kind, batch: Sequence[_Waiting]) -> list[int]:
        (stream, episode), keys = kind, self._keys
        output = keys.stream("rollouts") if stream == "prompts" else keys.pairs(episode)
        reply: list[int] = await self._client.script(
            "commit",
            [keys.stream(stream), output, keys.tries(stream), keys.fenced, *keys.account(episode)],
            [GROUP, episode, *(arg for each in batch for arg in each.args())],
        )
        return reply


def _batch(waiting: list[_Waiting]) -> list[_Waiting]:
    """The first of them, taken out: as many as may go in one script, at least one."""
    size = count = 0
    while count < min(len(waiting), _MOST) and (not count or size < _MOST_BYTES):
        size += waiting[count].size
        count += 1
    batch = waiting[:count]
    del waiting[:count]
    return batch
