"""What is read of a run: its ledgers, pairs and dead letters, a page at a time."""

from collections.abc import AsyncIterator

from pairloop.data.v1.pair_pb2 import PreferencePair
from services.errors import DataError
from services.queues.client import Client, Fields
from services.queues.items import DeadLetter
from services.queues.ledger import LedgerEvent
from services.queues.payloads import OUTSIDE, Payloads, payload_of

_BATCH = 256
_PAYLOADS = 64
"""Entries with payloads that are read at once."""


async def entries_of(
    client: Client, stream: str, at_once: int = _PAYLOADS
) -> AsyncIterator[tuple[str, Fields]]:
    """Every entry of a stream, oldest first."""
    after = "-"
    while page := await client.read(stream, after, at_once):
        for entry in page:
            yield entry
        after = page[-1][0]


class PairReader:
    """Pairs of an episode, again and again while they come: what lies outside is read once."""

    def __init__(self, client: Client, payloads: Payloads) -> None:
        self._client, self._payloads = client, payloads
        self._known: dict[bytes, PreferencePair] = {}
        """Of the stream that was read last, by where they lie."""

    async def read(self, stream: str) -> list[PreferencePair]:
        """As they came. Raises DataError for one that is missing or damaged."""
        pairs, known = list[PreferencePair](), dict[bytes, PreferencePair]()
        async for _, fields in entries_of(self._client, stream):
            field, value = payload_of(fields)
            pair = self._known.get(value) if field == OUTSIDE else None
            if pair is None:
                pair = PreferencePair.FromString(await self._payloads.get(field, value))
            if field == OUTSIDE:
                known[value] = pair
            pairs.append(pair)
        self._known = known
        return pairs


async def read_ledger(client: Client, stream: str, episode: int) -> list[LedgerEvent]:
    """Every event of an episode, in order."""
    events: list[LedgerEvent] = []
    async for entry, fields in entries_of(client, stream, _BATCH):
        text = {name.decode(): value.decode() for name, value in fields.items()}
        events.append(LedgerEvent(entry, text["kind"], text["id"], episode, text["detail"]))
    return events


async def read_dead_letters(client: Client, stream: str, payloads: Payloads) -> list[DeadLetter]:
    """Every item that kept failing, oldest first."""
    letters = []
    async for entry, fields in entries_of(client, stream):
        try:
            payload = await payloads.get(*payload_of(fields))
        except DataError:  # what it failed for, as a rule
            payload = b""
        letters.append(
            DeadLetter(
                entry_id=entry,
                stream=fields[b"stream"].decode(),
                prompt_id=fields[b"id"].decode(),
                episode=int(fields[b"episode"]),
                failures=int(fields[b"failures"]),
                deaths=int(fields[b"deaths"]),
                error=fields[b"error"].decode(),
                payload=payload,
            )
        )
    return letters
