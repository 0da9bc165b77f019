"""What is read of a run's account: ledgers and dead letters, a page at a time."""

from collections.abc import AsyncIterator

from services.queues.client import Client, Fields
from services.queues.items import DeadLetter
from services.queues.ledger import LedgerEvent

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


async def read_ledger(client: Client, stream: str, episode: int) -> list[LedgerEvent]:
    """Every event of an episode, in order."""
    events: list[LedgerEvent] = []
    async for entry, fields in entries_of(client, stream, _BATCH):
        text = {name.decode(): value.decode() for name, value in fields.items()}
        events.append(LedgerEvent(entry, text["kind"], text["id"], episode, text["detail"]))
    return events


async def read_dead_letters(client: Client, stream: str) -> list[DeadLetter]:
    """Every item that kept failing, oldest first."""
    return [
        DeadLetter(
            entry_id=entry,
            stream=fields[b"stream"].decode(),
            prompt_id=fields[b"id"].decode(),
            episode=int(fields[b"episode"]),
            failures=int(fields[b"failures"]),
            deaths=int(fields[b"deaths"]),
            error=fields[b"error"].decode(),
            payload=fields[b"payload"],
        )
        async for entry, fields in entries_of(client, stream)
    ]
