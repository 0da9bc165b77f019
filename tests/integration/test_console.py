"""The console's bridge over HTTP, in front of a real admin server: it answers as gRPC does, and to
its own page alone.
"""

import asyncio
import contextlib
import json
import random
import signal
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from orchestrator.episodes import EpisodeStore, State
from pairloop.admin.v1 import admin_pb2 as messages
from services.admin.server import AdminServer
from services.admin.settings import AdminSettings
from services.console.bridge import SERVICE, Bridge
from services.errors import UnreachableError
from services.queues.registry import Registry
from tests.integration.certificates import certificate
from tests.integration.conftest import SilentRuns, admin_of, serving

READ, WRITE = "a-token-for-reading", "a-token-for-writing"
CONSOLE = AdminSettings(port=0, console_port=0)
JSON = {"Content-Type": "application/json"}
Asked = tuple[int, dict[str, str], Any]


async def asked(
    url: str, body: bytes | None = None, tls: ssl.SSLContext | None = None, **headers: str
) -> Asked:
    """Status, headers (small letters) and body, parsed where it is JSON."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, body, named)  # noqa: S310

    def answer() -> Asked:
        try:
            page = urllib.request.urlopen(request, timeout=10, context=tls)  # noqa: S310
        except urllib.error.HTTPError as error:
            page = error
        with page:
            about = {name.lower(): value for name, value in page.headers.items()}
            text = page.read().decode()
            of_json = about.get("content-type") == "application/json"
            return page.status, about, json.loads(text) if of_json else text

    return await asyncio.to_thread(answer)


async def called(server: AdminServer, method: str, body: object = {}, **headers: str) -> Asked:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await asked(
        f"{server.console_url}api/v1/{method}", data, Content_Type="application/json",
        **headers,
    )  # fmt: skip


@pytest.fixture
async def console(redis_url: str, store: EpisodeStore) -> AsyncIterator[AdminServer]:
    async with admin_of(redis_url, store.run, CONSOLE) as (server, _):
        yield server


def pause(run: str, **more: object) -> dict[str, object]:
    return {"run": run, "number": 1, "reason": "a look", "request_id": "1", **more}


async def test_a_call_answers_as_by_grpc(
    console: AdminServer, store: EpisodeStore, redis_url: str
) -> None:
    await store.move(1, State.SAMPLING)
    status, headers, said = await called(console, "GetEpisode", {"run": store.run, "number": 1})
    assert (status, headers["cache-control"]) == (200, "no-store")
    episode = said["episode"]
    assert (episode["state"], episode["prompts"]) == ("EPISODE_STATE_SAMPLING", 4)
    assert (episode["paired"], episode["dropped"]) == (0, {})  # told though they are none

    status, _, said = await called(console, "PauseEpisode", pause(store.run))
    assert (status, said["episode"]["state"]) == (200, "EPISODE_STATE_PAUSED")
    assert said["episode"]["last_change"]["actor"] == "console at 127.0.0.1"
    assert (await called(console, "PauseEpisode", pause(store.run)))[2] == said
    registry = await Registry.open(redis_url, 5.0)
    lines = [fields for _, fields in await registry.audited() if fields["run"] == store.run]
    await registry.close()
    assert [(each["method"], each["reason"]) for each in lines] == [("PauseEpisode", "a look")] * 2


async def test_refusals_have_their_status_code_and_fields(
    console: AdminServer, store: EpisodeStore
) -> None:
    async def refused(method: str, body: object) -> tuple[int, str, str]:
        status, _, said = await called(console, method, body)
        return status, said["code"], said["message"]

    status, _, said = await called(console, "PauseEpisode", {"number": 1, "reason": "x" * 501})
    assert (status, said["code"]) == (400, "INVALID_ARGUMENT")
    assert said["violations"] == [
        {"field": "request_id", "description": "is missing: every change needs one"},
        {"field": "reason", "description": "is longer than 500 characters"},
    ]
    resume = pause(store.run)
    status, code, text = await refused("ResumeEpisode", resume)
    assert (status, code) == (409, "FAILED_PRECONDITION")
    assert text.startswith("episode 1 is PENDING")
    assert (await refused("GetEpisode", {"number": 9}))[:2] == (404, "NOT_FOUND")
    for method in ("Nothing", "WatchEpisodes"):  # the second streams
        status, code, text = await refused(method, {})
        assert (status, code) == (404, "NOT_FOUND")
        assert text.startswith(f"there is no method {method}")
    for body, why in (
        (b"{", "Failed to load JSON"),
        (b'{"numbr": 1}', 'no field named "numbr"'),
        (b'{"number": -1}', "number"),
        (b"[" * 60_000, ""),
    ):
        status, code, text = await refused("GetEpisode", body)
        assert (status, code) == (400, "INVALID_ARGUMENT"), body[:20]
        assert "the body is no GetEpisode request" in text
        assert why in text


async def test_every_method_that_answers_once_is_bridged(console: AdminServer) -> None:
    _, _, said = await called(console, "Nothing")
    once = [method.name for method in SERVICE.methods if not method.server_streaming]
    assert said["message"].endswith(", ".join(once))
    assert len(once) > 10


async def test_the_page_may_load_and_do_nothing_that_is_not_its_own(console: AdminServer) -> None:
    status, headers, page = await asked(str(console.console_url))
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy == {
        "default-src": "'none'", "script-src": "'self'", "style-src": "'self'",
        "connect-src": "'self'", "img-src": "'self' data:", "frame-ancestors": "'none'",
        "base-uri": "'none'", "form-action": "'none'",
    }  # fmt: skip
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "server" not in headers
    for text in ("style=", "<style", "onclick", "http:", "https:"):
        assert text not in page
    for path in ("openapi.json", "docs", "../bridge.py", "%2e%2e/bridge.py", "api/v1/ListRuns"):
        status, headers, _ = await asked(f"{console.console_url}{path}")
        assert (status, headers["x-content-type-options"]) == (404, "nosniff"), path


async def test_only_its_own_page_and_programs_may_ask(console: AdminServer) -> None:
    url = str(console.console_url)
    here = url.removeprefix("http://").rstrip("/")
    port = here.rpartition(":")[2]

    async def status(**headers: str) -> int:
        return (await called(console, "ListRuns", **headers))[0]

    for headers, expected in (
        ({}, 200),
        ({"Origin": f"http://{here}", "Sec_Fetch_Site": "same-origin"}, 200),
        ({"Host": f"localhost:{port}", "Origin": f"http://localhost:{port}"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, 403),
        ({"Sec_Fetch_Site": "none"}, 403),
        ({"Host": "evil.example"}, 421),
        ({"Host": f"evil.example:{port}", "Origin": f"http://evil.example:{port}"}, 421),
        ({"Host": "["}, 421),
        ({"Host": ""}, 421),
    ):
        assert await status(**headers) == expected, headers
    assert (await asked(url, Host="evil.example"))[0] == 421  # nor may it be read
    data = f"{url}api/v1/ListRuns", b"{}"
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        assert (await asked(*data, Content_Type=kind))[0] == 415, kind
    assert (await asked(*data, Content_Type="application/json; charset=utf-8"))[0] == 200


async def test_roles_are_those_of_grpc(redis_url: str, store: EpisodeStore, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"ada read {READ}\nbob write {WRITE}\n")
    settings = AdminSettings(port=0, console_port=0, tokens=str(tokens))
    await store.move(1, State.SAMPLING)
    async with admin_of(redis_url, store.run, settings) as (server, _):

        async def of(method: str, token: str) -> tuple[int, Any]:
            body = pause(store.run, actor="eve") if method == "PauseEpisode" else {}
            status, _, said = await called(server, method, body, Authorization=token)
            return status, said

        assert (await called(server, "ListRuns"))[0] == 401
        assert (await asked(str(server.console_url)))[0] == 200  # the page alone has no secret
        for wrong in (f"Basic {READ}", "Bearer nobody's", f"Bearer {READ}ä", "Bearer a\tb"):
            assert (await of("ListRuns", wrong))[0] == 401, wrong
        assert (await of("ListRuns", f"Bearer {READ}"))[0] == 200
        status, said = await of("PauseEpisode", f"Bearer {READ}")
        assert (status, said["code"]) == (403, "PERMISSION_DENIED")
        assert "ada has the role read" in said["message"]
        assert (await store.get(1)).state == messages.EPISODE_STATE_SAMPLING
        status, said = await of("PauseEpisode", f"Bearer {WRITE}")
        assert (status, said["episode"]["last_change"]["actor"]) == (200, "bob")


async def test_large_requests_are_refused_before_they_are_read(console: AdminServer) -> None:
    status, _, said = await called(console, "ListRuns", b" " * 65_535 + b"{}")
    assert (status, said["code"]) == (413, "RESOURCE_EXHAUSTED")
    assert (await called(console, "ListRuns", b" " * 65_534 + b"{}"))[0] == 200
    url = str(console.console_url).removeprefix("http://").rstrip("/")
    host, port = url.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"POST /api/v1/ListRuns HTTP/1.1\r\nHost: {url}\r\nContent-Type: application/json\r\n"
        "Content-Length: 100000000000\r\n\r\n{".encode()
    )
    writer.write(b" " * 70_000)
    first = await asyncio.wait_for(reader.readline(), 30)
    assert first.startswith(b"HTTP/1.1 413")
    writer.close()


@given(
    some.binary(max_size=200)
    | some.recursive(
        some.none() | some.booleans() | some.floats() | some.integers() | some.text(),
        lambda inner: some.lists(inner) | some.dictionaries(some.text() | some.sampled_from(
            ["run", "number", "reason", "request_id", "states", "page_size"]), inner),
        max_leaves=12,
    ).map(lambda value: json.dumps(value).encode())
)  # fmt: skip
def test_no_body_is_a_fault_of_ours(body: bytes) -> None:
    """Nobody listens: what is a request is UNAVAILABLE, and all else is refused before."""

    async def answered() -> set[int]:
        bridge = Bridge("unix:/nowhere/at/all")
        try:
            names = ("ListEpisodes", "PauseEpisode")
            return {(await bridge.call(name, body, None, "x")).status for name in names}
        finally:
            await bridge.close()

    assert asyncio.run(answered()) <= {400, 503}


def malformed(of: bytes, dice: random.Random) -> bytes:
    """Noise, a request with bytes changed, or one with an endless first line."""
    kind = dice.random()
    if kind < 0.3:
        return dice.randbytes(dice.randint(1, 400))
    if kind < 0.9:
        changed = bytearray(of)
        for _ in range(dice.randint(1, 6)):
            changed[dice.randrange(len(of))] = dice.randrange(256)
        return bytes(changed)
    return b"GET /" + b"a" * dice.randint(1, 200_000)


async def test_5000_malformed_requests_and_400_idle_connections_harm_nothing(
    console: AdminServer, store: EpisodeStore
) -> None:
    await store.move(1, State.SAMPLING)
    here = str(console.console_url).removeprefix("http://").rstrip("/")
    host, port = here.split(":")
    # Without a request_id: whatever becomes of it, it is no change.
    body = json.dumps({"number": 1, "reason": "r"}).encode()
    whole = (
        f"POST /api/v1/PauseEpisode HTTP/1.1\r\nHost: {here}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    dice, statuses, turns = random.Random(7), set[bytes](), asyncio.Semaphore(50)

    async def send(request: bytes) -> None:
        async with turns:
            reader, writer = await asyncio.open_connection(host, int(port))
            with contextlib.suppress(ConnectionError):
                writer.write(request)
                writer.write_eof()
                statuses.add((await reader.readline())[:12])
            writer.close()

    await asyncio.gather(*(send(malformed(whole, dice)) for _ in range(5000)))
    assert {status[9:10] for status in statuses} == {b"", b"4"}
    idle = [await asyncio.open_connection(host, int(port)) for _ in range(400)]
    assert (await called(console, "ListRuns"))[0] == 503
    for _, writer in idle:
        writer.close()
    async with asyncio.timeout(20):
        while (await called(console, "ListRuns"))[0] != 200:
            await asyncio.sleep(0.05)
    assert (await store.get(1)).state == messages.EPISODE_STATE_SAMPLING


async def test_signals_stay_the_process_s_own(redis_url: str, store: EpisodeStore) -> None:
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    async with admin_of(redis_url, store.run, CONSOLE) as (server, _):
        assert (await called(server, "ListRuns"))[0] == 200
        assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


async def test_a_silent_redis_is_unavailable(redis_url: str) -> None:
    runs = await SilentRuns.open(redis_url, 5.0)
    async with serving(runs, CONSOLE) as (server, _):
        status, _, said = await called(server, "ListEpisodes")
    await runs.close()
    assert (status, said["message"]) == (503, "Redis at redis://x:1 does not answer")


async def test_it_speaks_tls_as_the_api_does(
    redis_url: str, store: EpisodeStore, tmp_path: Path
) -> None:
    cert, key = (str(path) for path in certificate(tmp_path))
    settings = AdminSettings(port=0, console_port=0, tls_cert=cert, tls_key=key, tls_client_ca=cert)
    known = ssl.create_default_context(cafile=cert)
    async with admin_of(redis_url, store.run, settings) as (server, _):
        url = str(server.console_url)
        assert url.startswith("https://127.0.0.1:")
        with pytest.raises((urllib.error.URLError, ConnectionError, ssl.SSLError)):
            await asked(url, tls=known)  # no certificate of its own
        known.load_cert_chain(cert, key)
        assert (await asked(url, tls=known))[0] == 200


async def test_a_taken_port_ends_nothing_unless_it_was_asked_for(
    redis_url: str, store: EpisodeStore
) -> None:
    with socket.socket() as other:
        # Whoever has it, it is taken.
        try:
            other.bind(("127.0.0.1", 50052))
            other.listen()
        except OSError:
            other.close()
        async with admin_of(redis_url, store.run, AdminSettings(port=0)) as (server, _):
            assert not str(server.console_url).endswith(":50052/")
            assert (await asked(str(server.console_url)))[0] == 200
        settings = AdminSettings(port=0, console_port=50052)
        with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:50052: set admin\.console_port"):
            async with admin_of(redis_url, store.run, settings):
                pass
    async with admin_of(redis_url, store.run, AdminSettings(port=0, console_port=None)) as (it, _):
        assert it.console_url is None
