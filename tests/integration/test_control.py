"""One control plane over all runs of a Redis, those whose process is dead too; tokens and TLS."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from orchestrator.cli.main import main
from orchestrator.control.hold import RunHold
from orchestrator.control.live import LiveRun
from orchestrator.control.registration import listed, own_run
from orchestrator.control.runs import RedisRuns
from orchestrator.episodes import EpisodeStore, State
from pairloop.admin.v1 import admin_pb2 as messages
from pairloop.admin.v1.admin_pb2_grpc import AdminServiceStub
from services.admin.server import AdminServer
from services.admin.settings import AdminSettings
from services.errors import ConfigError, UnknownRunError, Waiting
from services.queues.embedded import EmbeddedRedis
from services.queues.registry import Registry
from services.telemetry.metrics.api import CODES
from tests.integration.certificates import certificate
from tests.integration.conftest import admin_of, live_run, serving

READ, WRITE, NOBODYS = "a-token-for-reading", "a-token-for-writing", "a-token-of-nobody"


@pytest.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    """A Redis of its own: nobody else's runs are there."""
    server = EmbeddedRedis.start(tmp_path / "redis", "everysec")
    yield server.url
    server.stop()


@pytest.fixture
async def registry(url: str) -> AsyncIterator[Registry]:
    registry = await Registry.open(url, 5.0)
    yield registry
    await registry.close()


def said(folder: Path, name: str, **more: str) -> messages.Run:
    folder.mkdir(exist_ok=True)
    run = own_run(name, "online_dpo", folder)
    run.MergeFrom(messages.Run(**more))
    return run


async def test_a_run_is_listed_as_long_as_it_goes_on_and_then_as_what_it_ended(
    url: str, registry: Registry, tmp_path: Path
) -> None:
    warnings: list[str] = []

    async def ended_by(error: BaseException | None, name: str) -> messages.Run:
        run = said(tmp_path / name, name)
        raised = pytest.raises(type(error)) if error else contextlib.nullcontext()
        with raised:
            live = LiveRun(run, RunHold(tmp_path / name, run))
            async with listed(live, url, warnings.append):
                while not any(each.id == run.id for each in await registry.runs()):
                    await asyncio.sleep(0.01)
                (now,) = [each for each in await registry.runs() if each.id == run.id]
                assert now.state == messages.RUN_STATE_RUNNING
                assert (now.heard.seconds > 0, now.host != "", now.pid) == (True, True, os.getpid())
                run.stage, run.address = "sft", "127.0.0.1:1"
                if error is not None:
                    raise error
        (last,) = [each for each in await registry.runs() if each.id == run.id]
        assert (last.stage, last.address) == ("sft", "")
        return last

    assert (await ended_by(None, "a")).state == messages.RUN_STATE_COMPLETED
    failed = await ended_by(ConfigError("wrong; mend it"), "b")
    assert (failed.state, failed.error) == (
        messages.RUN_STATE_FAILED,
        "ConfigError: wrong; mend it",
    )
    assert (await ended_by(Waiting("for labels"), "c")).state == messages.RUN_STATE_WAITING
    assert (await ended_by(KeyboardInterrupt(), "d")).state == messages.RUN_STATE_STOPPED
    assert [run.name for run in await registry.runs()] == ["d", "c", "b", "a"]
    assert warnings == []


def test_another_attempt_is_the_same_run_and_another_folder_is_not(tmp_path: Path) -> None:
    first, again = said(tmp_path / "x", "mine"), said(tmp_path / "x", "mine")
    other = said(tmp_path / "y", "mine")
    assert first.id == again.id != other.id
    assert first.id.startswith("mine-")


async def test_a_run_is_found_by_id_or_by_a_name_that_one_alone_has(
    url: str, registry: Registry, tmp_path: Path
) -> None:
    runs = await RedisRuns.open(url, 5.0)
    with pytest.raises(UnknownRunError, match="this Redis knows no run"):
        await runs.find("")
    one, two, three = (
        said(tmp_path / folder, name) for folder, name in (("1", "a"), ("2", "a"), ("3", "b"))
    )
    await registry.say(one)
    assert (await runs.find("")).id == one.id
    for run in (two, three):
        await registry.say(run)
    assert (await runs.find("b")).id == three.id
    assert (await runs.find(two.id)).id == two.id
    with pytest.raises(UnknownRunError, match="2 runs are called a; name one of"):
        await runs.find("a")
    with pytest.raises(UnknownRunError, match="there are 3 runs; name one of"):
        await runs.find("")
    with pytest.raises(UnknownRunError, match=f"no run c; name one of .*{three.id}"):
        await runs.find("c")
    await runs.close()


async def test_a_run_that_is_not_heard_of_is_lost_and_one_of_long_ago_forgotten(
    url: str, registry: Registry, tmp_path: Path
) -> None:
    quiet, old, done = (said(tmp_path / name, name) for name in ("quiet", "old", "done"))
    done.state = messages.RUN_STATE_COMPLETED
    for run in (quiet, old, done):
        await registry.say(run)
    heard = "pairloop:{runs}:heard"
    for run, seconds in ((quiet, 60), (done, 60), (old, 40 * 86_400)):
        at = int(await registry._client.field(heard, run.id) or 0) - seconds
        await registry._client.script("register", ["x", heard], [run.id, ""])
        await registry._client._redis.hset(heard, run.id, at)
    states = {run.name: run.state for run in await registry.runs()}
    assert states == {
        "quiet": messages.RUN_STATE_LOST,
        "old": messages.RUN_STATE_LOST,
        "done": messages.RUN_STATE_COMPLETED,
    }
    await registry.forget_old()
    await registry.say(said(tmp_path / "new", "new"))
    assert {run.name for run in await registry.runs()} == {"quiet", "done", "new"}


async def test_serve_pauses_a_run_whose_process_is_dead(
    url: str, registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"dead-{uuid.uuid4().hex[:6]}"
    store = await EpisodeStore.open(url, name, 5.0)
    await store.create(2, 4)
    await store.move(1, State.SAMPLING)
    dead = said(tmp_path / "dead", "dead", episodes=name, address="10.0.0.1:5")
    dead.state = messages.RUN_STATE_STOPPED
    await registry.say(dead)
    await registry.say(said(tmp_path / "early", "early"))
    tokens = tmp_path / "tokens"
    tokens.write_text(f"eve read {READ}\nada write {WRITE}\n")
    command = [sys.executable, "-m", "orchestrator.cli.main", "serve", "--port", "0"]
    environment = {**os.environ, "REDIS_URL": url, "PAIRLOOP_TOKENS_FILE": str(tokens)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as served:
        try:
            assert served.stdout is not None
            address = (await asyncio.to_thread(served.stdout.readline)).split(" at ")[1].split()[0]

            async def asked(*words: str, token: str) -> tuple[int, str, str]:
                path = tmp_path / "token"
                path.write_text(token)
                options = ["--address", address, "--token-file", str(path)]
                status = await asyncio.to_thread(main, [*options, *words])
                return status, *capsys.readouterr()

            status, out, _ = await asked("runs", "--json", token=READ)
            assert (status, {run["name"] for run in json.loads(out)}) == (0, {"dead", "early"})
            pause = ("episodes", "pause", "--run", "dead", "--reason", "a look")
            assert await asked(*pause, token=READ) == (
                1,
                "",
                "pairloop: eve has the role read, and PauseEpisode needs write; ask for another"
                " token\n",
            )
            status, _, err = await asked(*pause, token=NOBODYS)
            assert status == 1
            assert err.startswith("pairloop: a token is needed that this server knows")
            status, out, _ = await asked(*pause, token=WRITE)
            assert (status, out.split()[2]) == (0, "PAUSED")
            episode = await store.get(1)
            assert (episode.last_change.actor, episode.last_change.reason) == ("ada", "a look")
            assert (await asked("episodes", "list", "--run", "early", token=WRITE))[2].startswith(
                f"pairloop: run {(await registry.runs())[0].id} has no episodes yet"
            )
            scale = ("workers", "scale", "rollout=2", "--run", "dead")
            assert (await asked(*scale, token=WRITE))[2].startswith(
                f"pairloop: run {dead.id} is not there"
            )
            status, out, err = await asked("runs", "pause", "--run", "dead", token=WRITE)
            assert (status, err) == (0, "")
            assert out.splitlines()[-1] == (
                f"run {dead.id} is not there: it does so when the same command goes on"
            )
        finally:
            served.terminate()
        assert served.wait(20) == 0
    entries = [fields for _, fields in await registry.audited()]
    assert [(each["run"], each["actor"], each["what"]) for each in entries] == [
        (dead.id, "ada", "the current episode"),
        (dead.id, "ada", "WORKER_KIND_ROLLOUT=2"),
        (dead.id, "ada", "the run"),
    ]
    assert (entries[0]["method"], entries[0]["outcome"]) == ("PauseEpisode", "done")
    assert entries[1]["outcome"] == f"run {dead.id} is not there; the same command goes on with it"
    await store.close()


async def test_what_is_refused_is_in_the_audit_stream_with_why(
    url: str, registry: Registry, run_name: str
) -> None:
    store = await EpisodeStore.open(url, run_name, 5.0)
    await store.create(1, 4)
    async with admin_of(url, run_name) as (_, address), channel(address) as admin:
        request = messages.ResumeEpisodeRequest(reason="r", request_id="1", actor="bob")
        with pytest.raises(grpc.aio.AioRpcError):
            await admin.ResumeEpisode(request)
        long = messages.ResumeEpisodeRequest(reason="r" * 501, request_id=" ")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await admin.ResumeEpisode(long)
        assert caught.value.details() == (
            "request_id is missing: every change needs one; reason is longer than 500 characters"
        )
        details = dict(caught.value.trailing_metadata() or ())["grpc-status-details-bin"]
        assert b"google.rpc.BadRequest" in bytes(details)  # type: ignore[arg-type]
    (entry,) = [fields for _, fields in await registry.audited()]
    assert (entry["actor"], entry["reason"], entry["request_id"]) == ("bob", "r", "1")
    assert entry["outcome"] == f"run {run_name} has no episode left to resume"
    await store.close()


async def test_mtls_lets_in_whom_the_authority_signed_alone(
    url: str, run_name: str, tmp_path: Path
) -> None:
    cert, key = certificate(tmp_path)
    (tmp_path / "other").mkdir()
    other = certificate(tmp_path / "other")
    settings = AdminSettings(port=0, tls_cert=str(cert), tls_key=str(key), tls_client_ca=str(cert))
    runs = await RedisRuns.open(url, 5.0, live_run(run_name, tmp_path))
    async with serving(runs, settings) as (_, address):

        def asked(*options: str) -> int:
            return main(["--address", address, *options, "runs"])

        own = ("--ca", str(cert), "--cert", str(cert), "--key", str(key))
        foreign = ("--ca", str(cert), "--cert", str(other[0]), "--key", str(other[1]))
        for options, status in ((own, 0), (foreign, 1), (("--ca", str(cert)), 1), ((), 1)):
            assert await asyncio.to_thread(asked, *options) == status, options
    await runs.close()


class channel:
    """A stub on a channel of its own."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address)

    async def __aenter__(self) -> AdminServiceStub:
        return AdminServiceStub(self._channel)  # type: ignore[no-untyped-call]

    async def __aexit__(self, *error: object) -> None:
        await self._channel.close()


async def test_how_calls_end_is_counted(url: str, run_name: str, tmp_path: Path) -> None:
    store = await EpisodeStore.open(url, run_name, 5.0)
    await store.create(1, 4)
    tokens = tmp_path / "tokens"
    tokens.write_text(f"eve read {READ}\n")
    ended: Counter[str] = Counter()
    runs = await RedisRuns.open(url, 5.0, live_run(run_name, tmp_path))
    server = AdminServer(lambda code: ended.update([code]))
    address = await server.start(AdminSettings(port=0, tokens=str(tokens)), runs)
    async with grpc.aio.insecure_channel(address) as calls:
        admin = AdminServiceStub(calls)  # type: ignore[no-untyped-call]
        as_eve = (("authorization", f"Bearer {READ}"),)
        await admin.ListRuns(messages.ListRunsRequest(), metadata=as_eve)
        watch = admin.Watch(messages.WatchRequest(run=run_name), metadata=as_eve)
        await watch.read()
        watch.cancel()
        pause = messages.PauseEpisodeRequest(reason="r", request_id="1")
        for call in (
            admin.ListRuns(messages.ListRunsRequest()),
            admin.PauseEpisode(pause, metadata=as_eve),
            admin.GetEpisode(messages.GetEpisodeRequest(number=9), metadata=as_eve),
        ):
            with pytest.raises(grpc.aio.AioRpcError):
                await call
    await server.stop()
    await runs.close()
    await store.close()
    once = ("OK", "CANCELLED", "UNAUTHENTICATED", "PERMISSION_DENIED", "NOT_FOUND")
    assert ended == dict.fromkeys(once, 1)
    assert set(ended) <= set(CODES)
