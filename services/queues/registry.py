"""The runs of a Redis: what each says of itself, and when it was last heard of.

All of them lie in one slot of a cluster; a run's own keys, in another, are in keys.py. What a run
says is a pairloop.admin.v1.Run in protobuf's JSON, so that one more field breaks no reader.
"""

from collections.abc import Mapping, Sequence
from typing import Self

from google.protobuf import json_format

from pairloop.admin.v1.admin_pb2 import RUN_STATE_LOST, Run
from services.queues.client import Client, Entry, connect
from services.queues.keys import RUNS, RUNS_KEPT_S
from services.queues.mailbox import Mailbox
from services.states import LIVE

BEAT_S = 2.0
"""A run says so often that it is there."""
_LOST_S = 20
"""One that is running is lost when it says nothing for so long."""
_AUDIT = f"{RUNS}audit"
_AUDIT_ENTRIES = 100_000
_KEYS = [f"{RUNS}said", f"{RUNS}heard"]


class Registry:
    """Every method may raise UnreachableError."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @classmethod
    async def open(cls, url: str, timeout_s: float) -> Self:
        """Connect. Raises UnreachableError past the timeout."""
        return cls(await connect(url, timeout_s, (f"{RUNS}epoch", 0)))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    def mailbox(self) -> Mailbox:
        """What is asked of these runs, on the same connections."""
        return Mailbox(self._client)

    async def say(self, run: Run) -> None:
        """What a run says of itself from now on; it is heard of as this comes in."""
        text = json_format.MessageToJson(run, indent=None)
        await self._client.script("register", _KEYS, [run.id, text])

    async def forget_old(self) -> None:
        """Those that said nothing for a month."""
        old = [run.id for run, left in await self._all() if left <= 0]
        await self._client.script("unregister", _KEYS, old)

    async def audit(self, fields: Mapping[str, str]) -> None:
        """Add an entry to the audit stream; the oldest go at last."""
        pairs = [text for pair in fields.items() for text in pair]
        await self._client.script("audit", [_AUDIT], [_AUDIT_ENTRIES, *pairs])

    async def audited(
        self, after: str = "-", count: int = 1000
    ) -> list[tuple[str, Mapping[str, str]]]:
        """Entries after an id, each with its own."""
        return _decoded(await self._client.read(_AUDIT, after, count))

    async def audited_before(
        self, before: str = "+", count: int = 1000
    ) -> list[tuple[str, Mapping[str, str]]]:
        """Entries before an id, each with its own, the latest first."""
        return _decoded(await self._client.read_back(_AUDIT, before, count))

    async def runs(self) -> list[Run]:
        """Every run, the latest first."""
        found = [run for run, _ in await self._all()]
        return sorted(found, key=lambda run: run.started.ToNanoseconds(), reverse=True)

    async def _all(self) -> list[tuple[Run, int]]:
        """Each with the seconds until it is forgotten."""
        now, *found = await self._client.script("registered", _KEYS)
        runs = []
        for said, heard in zip(found[1::3], found[2::3], strict=True):
            run = json_format.Parse(said, Run(), ignore_unknown_fields=True)
            run.heard.FromSeconds(int(heard))
            silent_s = int(now) - int(heard)
            if run.state in LIVE and silent_s > _LOST_S:
                run.state = RUN_STATE_LOST
            runs.append((run, RUNS_KEPT_S - silent_s))
        return runs


def _decoded(entries: Sequence[Entry]) -> list[tuple[str, Mapping[str, str]]]:
    return [(id_, {k.decode(): v.decode() for k, v in each.items()}) for id_, each in entries]
