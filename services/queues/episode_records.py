"""Episodes as Redis holds them: one hash each. What the fields mean is the orchestrator's.

The same hash is read by `dispatch` (state) and written by every commit (counters).
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, Self

from services.errors import StateError
from services.queues.changes import changed
from services.queues.client import Client, Patience, connect
from services.queues.items import DeadLetter
from services.queues.keys import LAYOUT, Keys
from services.queues.payloads import Payloads
from services.queues.reading import read_dead_letters
from services.queues.settings import QueueSettings

Fields = dict[str, str]
_NO_FILES = Payloads(None, QueueSettings())
_LETTERS = 64
"""Dead letters, with their payloads, in one script."""


@dataclass(frozen=True)
class Answer:
    """What a change answered: the operation it was asked for, and the episode after it."""

    operation: str
    fields: Fields


@dataclass(frozen=True)
class Moved:
    """Outcome of a compare-and-set."""

    outcome: Literal["done", "repeated", "changed", "refused"]
    """"repeated": the request id was answered before; "changed": the state was another."""
    answer: Answer | None
    """Of "done" and "repeated"."""
    why: str = ""
    """Of "refused", to be read after the episode's number."""


class EpisodeRecords:
    """The durable episodes of a run. Every method may raise UnreachableError."""

    def __init__(self, client: Client, run: str) -> None:
        self._client = client
        self._keys = Keys(run)

    @classmethod
    async def open(
        cls, url: str, run: str, timeout_s: float, epoch: int, patience: Patience
    ) -> Self:
        """Connect. Raises UnreachableError past the timeout."""
        return cls(await connect(url, timeout_s, (Keys(run).epoch, epoch), patience), run)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def create(self, count: int, prompts: int, published: int) -> tuple[int, int]:
        """Make episodes 1 to `count`, PENDING, that are not there yet.

        Where there are none at all, the first `published` are made COMPLETED.

        Returns how many there were, and how many prompts they have. Nothing is made when there
        were more than `count`, or with another number of prompts. Raises StateError for a run that
        another version of this code began.
        """
        keys = [self._keys.episodes, self._keys.layout]
        keys += [self._keys.episode(number) for number in range(1, count + 1)]
        reply = await self._client.script("create", keys, [prompts, published, LAYOUT])
        before, planned, layout = map(int, reply)
        if layout != LAYOUT:
            raise StateError(
                f"run {self._keys.run} was begun by another version of Pairloop (its keys in Redis"
                f" have layout {layout}, this one writes {LAYOUT}): finish it with that one, or"
                " begin the stage anew with --fresh"
            )
        return before, planned

    async def count(self) -> int:
        """How many there are."""
        return int(await self._client.get(self._keys.episodes) or 0)

    async def read(self, first: int = 1, count: int | None = None) -> list[Fields]:
        """Every episode from number `first`, or so many, in order."""
        every = range(first, await self.count() + 1)
        return await self._rows(every if count is None else every[:count])

    async def one(self, number: int) -> Fields:
        """One episode, however many there are; {} when there is no such one."""
        (row,) = await self._rows([number])
        return row if "state" in row else {}

    async def answered(self, request_id: str) -> Answer | None:
        """What a request id was answered, if it was."""
        text = await self._client.field(self._keys.requests, request_id)
        return _answer(text) if text else None

    async def move(
        self,
        number: int,
        seen: str,
        to: str,
        *,
        request_id: str,
        operation: str,
        fields: Mapping[str, str],
    ) -> Moved:
        """Set state and fields at once, if the state is still `seen` and the request id is new.

        A request id of "" is always new, and its answer is not kept.
        """
        args = [request_id, operation, seen, to]
        for name, value in fields.items():
            args += [name, value]
        outcome, answer = await self._client.script(
            "move",
            [
                self._keys.episode(number), self._keys.requests, self._keys.episode(number - 1),
                self._keys.changes,
            ],
            args,
        )  # fmt: skip
        if outcome == b"changed":
            return Moved("changed", None)
        if outcome == b"refused":
            return Moved("refused", None, answer.decode())
        return Moved("done" if outcome == b"done" else "repeated", _answer(answer))

    async def changed(self, seconds: float) -> None:
        """Until something of the run changes, or so many seconds are over: see changes.py."""
        await changed(self._client, self._keys, seconds)

    async def dead_letters(self) -> list[DeadLetter]:
        """Every item that kept failing, oldest first; a large one without its payload."""
        return await read_dead_letters(self._client, self._keys.dead, _NO_FILES)

    async def replay(self, number: int) -> tuple[int, str]:
        """Try an episode's dead letters again: how many, and the state it is in.

        None where it is no longer, or not yet, sampled; none the second time.
        """
        keys, replayed = self._keys, 0
        streams = [keys.dead, keys.stream("prompts"), keys.stream("rollouts")]
        entries = [each.entry_id for each in await self.dead_letters() if each.episode == number]
        # At least once, for the state.
        for start in range(0, max(1, len(entries)), _LETTERS):
            now, state = await self._client.script(
                "replay",
                [*streams, *keys.account(number)],
                [number, *entries[start : start + _LETTERS]],
            )
            replayed += int(now)
        return replayed, state.decode()

    async def _rows(self, numbers: Iterable[int]) -> list[Fields]:
        found = await self._client.hashes([self._keys.episode(number) for number in numbers])
        return [
            {name.decode(): value.decode() for name, value in fields.items()} for fields in found
        ]


def _answer(text: bytes) -> Answer:
    operation, *flat = json.loads(text)
    return Answer(operation, dict(zip(flat[::2], flat[1::2], strict=True)))
