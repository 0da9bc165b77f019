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
from services.queues.refusals import refused, silent
from services.queues.settings import QueueSettings


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost", "redis://localhost:6379"),
        ("redis://me:secret@db:7000/2", "redis://db:7000/2"),
        ("rediss://:secret@db", "rediss://db:6379"),
        ("redis://me:secret@[::1]:7000", "redis://[::1]:7000"),
        ("redis://:secret@a,b:7001", "redis://a:6379,b:7001"),
        ("rediss://db?ssl_ca_certs=/ca&ssl_check_hostname=no", "rediss://db:6379"),
        (
            "redis+sentinel://me:secret@a,b:1/main/3?sentinel_password=secret",
            "redis+sentinel://a:26379,b:1/main/3",
        ),
    ],
)
def test_the_shown_address_has_no_secret(url: str, shown: str) -> None:
    endpoint = endpoint_of(url)
    assert endpoint.shown == shown
    assert "secret" not in repr(endpoint)


def test_what_an_address_says() -> None:
    at = endpoint_of("redis+sentinel://m%65:p%2Fss@a,[::1]:7/m%61in/3?sentinel_username=you")
    assert (at.kind, at.tls, at.hosts) == ("sentinel", False, (("a", 26379), ("::1", 7)))
    assert (at.user, at.password, at.service, at.db) == ("me", "p/ss", "main", 3)
    assert at.options == {"sentinel_username": "you"}
    at = endpoint_of("rediss://:p@a/2?db=5&ssl_certfile=/c")
    assert (at.kind, at.tls, at.hosts, at.user, at.db) == ("server", True, (("a", 6379),), None, 5)
    assert at.options == {"ssl_certfile": "/c"}


@pytest.mark.parametrize(
    "url",
    [
        "", "localhost:6379", "http://db", "redis://", "redis://:pa/secret@db:7000",
        "redis://:secret@db:70000", "redis://:secret@a,,b", "redis://:secret@db/main",
        "redis://:secret@db/1/2", "redis+cluster://:secret@db", "redis://:sec#secret@db",
        "redis+sentinel://:secret@a/main/x", "redis://me:1?secret=2@db",
        "redis+sentinel://me:1/secret@db",
    ],
)  # fmt: skip
def test_a_malformed_address_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ConfigError, match=r"queues\.url is no Redis address") as caught:
        endpoint_of(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis+sentinel://:secret@a", "without the name of a service: write redis.sentinel://"),
        ("redis://db?password=secret&x=secret", r"options that there are not \(password, x\)"),
        ("redis://:secret@db?ssl_certfile=/c", "ssl_ options and without TLS: write rediss"),
    ],
)
def test_what_an_address_lacks_is_said(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        endpoint_of(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("redis://db", "redis://db"),
        ("redis://me@db?client_name=a:b", "redis://me@db?client_name=a:b"),
        ("redis://:secret@a,b/1", "redis://:***@a,b/1"),
        (
            "redis+sentinel://me:secret@a/m?sentinel_password=secret&client_name=x",
            "redis+sentinel://me:***@a/m?sentinel_password=***&client_name=x",
        ),
    ],
)
def test_what_is_kept_of_an_address_has_no_password(url: str, kept: str) -> None:
    assert QueueSettings(url=url).model_dump(mode="json")["url"] == kept


def test_the_keys_of_a_run_share_its_hash_tag_and_stay_what_they_are() -> None:
    # A run that a new release goes on with has them in its append-only file.
    keys = Keys("demo")
    names = [
        keys.stream("prompts"), keys.pairs(3), *keys.account(3), keys.episodes, keys.layout,
        keys.requests, keys.dead, keys.tries("prompts"), keys.fenced, keys.lease, keys.epoch,
    ]  # fmt: skip
    assert keys.prefix == "pairloop:{demo}:"
    assert [name.removeprefix(keys.prefix) for name in names] == [
        "prompts", "pairs:3", "episode:3", "ledger:3", "steps:3", "credits", "changes",
        "episodes", "layout",
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


@pytest.mark.parametrize(
    ("said", "what"),
    [
        # Redis 7; Redis 6 is tested with a server.
        (
            "NOPERM User bob has no permissions to run the 'xadd' command script: f_1",
            "run XADD",
        ),
        ("NOPERM this user has no permissions to run the 'info' command or its", "run INFO"),
        ("NOPERM No permissions to access a key script: f_1, on @user_script:9.", "use the keys"),
        ("x @user_script:9: The user executing the script can't run this", "run a command"),
    ],
)
def test_a_right_that_is_missing_is_named(said: str, what: str) -> None:
    assert f"at redis://a:1 does not let its user {what}" in str(refused(said, "redis://a:1"))


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
