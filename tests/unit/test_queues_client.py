"""Addresses are shown without their secrets; keys of a run share a hash tag."""

import asyncio
import contextlib
import pickle
import subprocess
import sys

import pytest

from services.errors import ConfigError
from services.queues.client import Client
from services.queues.endpoint import endpoint_of
from services.queues.keys import Keys
from services.queues.refusals import silent


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost", "redis://localhost:6379"),
        ("redis://me:secret@db:7000/2", "redis://db:7000/2"),
        ("rediss://:secret@db", "rediss://db:6379"),
    ],
)
def test_the_shown_address_has_no_secret(url: str, shown: str) -> None:
    assert endpoint_of(url).shown == shown


@pytest.mark.parametrize(
    "url", ["", "localhost:6379", "http://db", "redis://", "redis://:pa/secret@db:7000"]
)
def test_a_malformed_address_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ConfigError, match=r"queues\.url is no Redis address") as caught:
        endpoint_of(url)
    assert "secret" not in str(caught.value)


def test_the_keys_of_a_run_share_its_hash_tag_and_stay_what_they_are() -> None:
    # A run that a new release goes on with has them in its append-only file.
    keys = Keys("demo")
    names = [
        keys.stream("prompts"), keys.pairs(3), *keys.account(3), keys.episodes, keys.layout,
        keys.requests, keys.dead, keys.tries("prompts"), keys.fenced, keys.lease, keys.epoch,
    ]  # fmt: skip
    assert keys.prefix == "pairloop:{demo}:"
    assert [name.removeprefix(keys.prefix) for name in names] == [
        "prompts", "pairs:3", "episode:3", "ledger:3", "steps:3", "credits", "episodes", "layout",
        "requests", "dead", "tries:prompts", "fenced", "lease",
        "epoch",
    ]  # fmt: skip


def test_settings_items_and_ledger_do_not_import_redis() -> None:
    code = (
        "import sys, services.queues.settings, services.queues.items, services.queues.ledger;"
        "sys.exit('redis' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_an_error_of_the_server_goes_from_process_to_process() -> None:
    error = silent("redis://here:1")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert (type(again), str(again), again.what) == (type(error), str(error), error.what)


async def test_a_cancellation_that_the_library_loses_ends_the_call() -> None:
    class Deaf:
        async def get(self, key: str) -> bytes:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(10)
            return b"sent all the same"

    client = Client(Deaf(), endpoint_of("redis://here:1"), ("epoch", 0))  # type: ignore[arg-type]
    asked = asyncio.create_task(client.get("key"))
    await asyncio.sleep(0)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(asked, 5)
