"""Which commits go together, and what becomes of each, with a server that answers when told."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from services.errors import ReplacedError, UnreachableError
from services.queues.client import Client
from services.queues.commits import Commits
from services.queues.items import Item
from services.queues.keys import Keys

FIELDS = 6
"""Arguments of an item without events."""


class Server:
    """Records each script's entries; answers 1 of each, but what is in `answers`."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.answers: dict[str, int] = {}
        self.failing = False
        self.most: int | None = None
        """Answers that it gives."""
        self.free = asyncio.Event()
        self.free.set()

    async def script(self, name: str, keys: Sequence[str], args: Sequence[Any]) -> list[int]:
        entries = [str(entry) for entry in args[2::FIELDS]]
        self.calls.append(entries)
        await self.free.wait()
        if self.failing:
            raise UnreachableError("the server is away")
        return [self.answers.get(entry, 1) for entry in entries][: self.most]


def commits(server: Server) -> Commits:
    return Commits(cast(Client, server), Keys("run"))


def item(entry: str, episode: int = 1) -> Item:
    return Item(entry, f"p{entry}", episode, b"", "w")


def start(made: Commits, entry: str, episode: int = 1, output: bytes = b"") -> "asyncio.Task[bool]":
    return asyncio.create_task(
        made.commit("prompts", item(entry, episode), ("payload", output), ())
    )


async def arrived(server: Server, calls: int) -> None:
    async with asyncio.timeout(20):
        while len(server.calls) < calls:
            await asyncio.sleep(0)


async def test_the_first_goes_at_once_and_what_comes_meanwhile_goes_together() -> None:
    server = Server()
    made = commits(server)
    server.free.clear()
    first = start(made, "1")
    await arrived(server, 1)
    others = [start(made, "2"), start(made, "3"), start(made, "4", episode=2), start(made, "5")]
    await asyncio.sleep(0)
    server.free.set()
    assert await asyncio.gather(first, *others) == [True] * 5
    assert server.calls == [["1"], ["2", "3", "5"], ["4"]]


async def test_each_has_its_own_outcome() -> None:
    server = Server()
    made = commits(server)
    server.answers = {"2": 0, "3": -1}
    found = await asyncio.gather(*(start(made, e) for e in "1234"), return_exceptions=True)
    assert server.calls == [["1", "2", "3", "4"]]
    assert [found[0], found[1], found[3]] == [True, False, True]
    assert isinstance(found[2], ReplacedError)


async def test_an_error_is_that_of_those_that_went_together_and_the_next_go_on() -> None:
    server = Server()
    made = commits(server)
    server.failing = True
    found = await asyncio.gather(start(made, "1"), start(made, "2"), return_exceptions=True)
    assert [type(each) for each in found] == [UnreachableError] * 2
    server.failing = False
    assert await start(made, "3")


async def test_an_answer_that_is_too_short_leaves_nobody_waiting() -> None:
    server = Server()
    made = commits(server)
    server.most = 1
    async with asyncio.timeout(20):
        first, second = await asyncio.gather(
            start(made, "1"), start(made, "2"), return_exceptions=True
        )
    assert first is True
    assert isinstance(second, ValueError)


async def test_who_no_longer_waits_changes_nothing_for_the_others() -> None:
    server = Server()
    made = commits(server)
    server.free.clear()
    left, stays = start(made, "1"), start(made, "2")
    await arrived(server, 1)
    left.cancel()
    await asyncio.sleep(0)
    server.free.set()
    assert await stays
    assert left.cancelled()


async def test_a_script_is_bounded_in_items_and_in_bytes() -> None:
    server = Server()
    made = commits(server)
    await asyncio.gather(*(start(made, str(n)) for n in range(130)))
    assert [len(call) for call in server.calls] == [64, 64, 2]
    server.calls.clear()
    await asyncio.gather(*(start(made, str(n), output=bytes(3 << 20)) for n in range(3)))
    assert [len(call) for call in server.calls] == [2, 1]


async def test_closing_ends_who_waits() -> None:
    server = Server()
    made = commits(server)
    server.free.clear()
    sent = start(made, "1")
    await arrived(server, 1)
    waiting = start(made, "2")
    await asyncio.sleep(0)
    await made.close()
    for each in (sent, waiting):
        with pytest.raises(asyncio.CancelledError):
            await each
    assert server.calls == [["1"]]
