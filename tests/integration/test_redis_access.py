"""Who may ask a Redis what: ACL users, TLS, and servers that a run cannot rely on."""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from orchestrator.checks.addresses import check_addresses
from orchestrator.config.ray import RaySettings
from orchestrator.episodes import EpisodeStore, State
from pairloop.admin.v1.admin_pb2 import Run
from pairloop.data.v1.pair_pb2 import DropReason
from services.errors import ConfigError, PairloopError, UnreachableError
from services.queues.address import redis_of_run
from services.queues.client import look
from services.queues.mailbox import Letter, Reply
from services.queues.queues import RunQueues
from services.queues.registry import Registry
from services.queues.run_lease import RunLease
from services.queues.settings import QueueSettings
from tests.integration.certificates import certificate
from tests.integration.redis_servers import Process, Servers
from tests.integration.test_queues import pair_of, prompts, rollout_of
from tests.unit.test_nodes import online

REWARD = {"parts": [{"kind": "missing_eos"}]}
NO_SNAPSHOTS = 'save ""'


@pytest.fixture
def server(servers: Servers) -> Process:
    return servers.start("appendonly yes")


def documented_rights() -> list[str]:
    """What docs/jobs.md says that an ACL user needs, on one server, and the rights to look."""
    said = " ".join(str(QueueSettings.model_fields["url"].description).split())
    must, *more = re.findall(r"`([^`]+)`", said)
    assert more == ["+select", "+cluster|slots +asking", "+info +config|get"]
    return must.split()


def allow(server: Process, *rights: str) -> str:
    """A user with these and no others; the address with it."""
    with server.asked() as asked:
        asked.execute_command("ACL SETUSER", "worker", "reset", "on", ">p4ss", *rights)
    return f"redis://worker:p4ss@{server.address}"


class HeldError(Exception):
    """The run has a holder."""


def held(who: str) -> None:
    raise HeldError(who)


async def whole_run(url: str, run: str) -> None:
    """Everything that a run asks of Redis."""
    async with AsyncExitStack() as stack:
        lease = await RunLease.take(url, run, 5.0, 5.0)
        stack.push_async_callback(lease.end)
        with pytest.raises(HeldError):
            await RunLease.take(url, run, 5.0, 5.0, held)
        registry = await Registry.open(url, 5.0)
        stack.push_async_callback(registry.close)
        await registry.say(Run(id=run))
        assert run in [each.id for each in await registry.runs()]
        mailbox = registry.mailbox()
        await mailbox.ask(run, Letter("1", "a letter"))
        assert await mailbox.first(run) == Letter("1", "a letter")
        await mailbox.answer(run, "1", "done")
        assert await mailbox.ask(run, Letter("1", "another")) == Reply("a letter", "done")
        assert await mailbox.first(run) is None
        await registry.audit({"run": run})
        assert (await registry.audited())[-1][1] == {"run": run}
        assert (await registry.audited_before(count=1))[0][1] == {"run": run}
        store = await EpisodeStore.open(url, run, 5.0, lease.epoch)
        stack.push_async_callback(store.close)
        await store.create(1, 4)
        await store.move(1, State.SAMPLING)
        await store.changed(1.0)
        queues = await RunQueues.open(url, run, QueueSettings(max_failures=1), lease.epoch)
        stack.push_async_callback(queues.close)
        assert (await queues.dispatch(1, prompts(run, 4))).sent == 4
        first, *items = await queues.take("prompts", "a", 4, 1.0)
        assert await queues.fail("prompts", first, "why")
        for item in items:
            assert await queues.commit_rollout(item, rollout_of(item))
        await queues.take("rollouts", "p", 4, 1.0)
        assert await queues.give_back_all() == 3
        last, *kept = await queues.take("rollouts", "q", 4, 1.0)
        for item in kept:
            assert await queues.commit_pair(item, pair_of(item))
        assert await queues.commit_drop(last, DropReason.DROP_REASON_TIE)
        await store.move(1, State.TRAINING)
        dropped = await queues.dropped(1)
        assert len(await queues.pairs(1)) == 2
        assert await queues.commit_trained(1, 1, [item.prompt_id for item in kept], dropped) == 2
        assert await queues.published(1, 1)
        assert len(await queues.dead_letters()) == 1
        assert await queues.credits_in_use() == 0
        for to in (State.PUBLISHING, State.COMPLETED):
            await store.move(1, to)
        assert await queues.forget(1)
        await queues.expire(None)
        await queues.expire(60)


async def test_a_user_with_the_documented_rights_can_run(server: Process) -> None:
    url = allow(server, *documented_rights())
    await whole_run(url, "allowed")
    (doubt,) = await look(url, 5.0)
    assert "does not let its user ask INFO" in doubt
    assert doubt.endswith("; ACL SETUSER ... +info allows it")
    assert await look(allow(server, *documented_rights(), "+info"), 5.0) == []


async def test_each_documented_right_is_needed_and_named_where_it_is_missing(
    server: Process,
) -> None:
    rights = documented_rights()
    # The one is asked when a connection was idle for long, the other in silence as a lease ends.
    for number, right in enumerate(each for each in rights if each not in ("+ping", "+del")):
        url = allow(server, *(each for each in rights if each != right))
        with pytest.raises(UnreachableError) as caught:
            await whole_run(url, f"without-{number}")
        wanted = "use the keys that begin with pairloop:"
        if right.startswith("+"):
            wanted = f"run {right[1:].split('|')[0].upper()}"
        assert f"does not let its user {wanted}; grant, with ACL SETUSER" in str(caught.value)
        assert "p4ss" not in str(caught.value)
        with server.asked() as asked:
            asked.flushall()
            asked.script_flush()


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
async def test_a_server_that_lets_go_of_keys_is_refused(servers: Servers, policy: str) -> None:
    server = servers.start("maxmemory 100mb", f"maxmemory-policy {policy}")
    url = f"redis://{server.address}"
    for asked in (look(url, 5.0), RunQueues.open(url, "run", QueueSettings())):
        with pytest.raises(ConfigError) as caught:
            await asked
        assert str(caught.value) == (
            f"Redis at redis://{server.address} lets go of keys when its 105 MB are full"
            f" (maxmemory-policy {policy}), and prompts would be lost with them; set"
            " maxmemory-policy noeviction there"
        )


def test_it_is_refused_before_a_run_begins(servers: Servers) -> None:
    server = servers.start("maxmemory 100mb", "maxmemory-policy allkeys-lfu")
    job = online(queues={"url": f"redis://{server.address}"}, reward=REWARD)
    with pytest.raises(ConfigError, match="lets go of keys when its 105 MB are full"):
        check_addresses(RaySettings(), [job])
    with server.asked() as asked:
        asked.config_set("maxmemory-policy", "noeviction")
    check_addresses(RaySettings(), [job])


async def test_a_limit_that_is_never_met_or_never_lets_go_is_none(servers: Servers) -> None:
    for lines in (
        ["maxmemory 100mb", "maxmemory-policy noeviction"],
        ["maxmemory 0", "maxmemory-policy allkeys-lru"],
    ):
        server = servers.start("appendonly yes", *lines)
        assert await look(f"redis://{server.address}", 5.0) == []


async def test_a_server_that_keeps_nothing_on_disk_is_warned_of_once_a_run(
    servers: Servers, tmp_path: Path
) -> None:
    settings = QueueSettings(url=f"redis://{servers.start(NO_SNAPSHOTS).address}")
    with redis_of_run(settings, tmp_path) as redis:
        (doubt,) = await redis.doubts(5.0)
    assert doubt == (
        f"Redis at {settings.url} keeps nothing on disk (no append-only file, no snapshots): what"
        " no checkpoint holds is lost when it restarts, and made again; set appendonly yes"
    )
    assert await look(f"redis://{servers.start('save 60 1').address}", 5.0) == []
    untold = servers.start(NO_SNAPSHOTS, 'rename-command CONFIG ""')
    (doubt,) = await look(f"redis://{untold.address}", 5.0)
    assert "may keep nothing on disk (no append-only file, snapshots not told)" in doubt


async def test_the_server_of_the_run_itself_raises_no_doubt(tmp_path: Path) -> None:
    with redis_of_run(QueueSettings(), tmp_path) as redis:
        assert await redis.doubts(5.0) == []
        assert await look(redis.url, 5.0) == []


async def test_a_sentinel_or_several_servers_are_no_server(servers: Servers) -> None:
    one, two = servers.start(), servers.start()
    with pytest.raises(ConfigError, match=r"names several hosts, and .* is no cluster: name"):
        await look(f"redis://{one.address},{two.address}", 5.0)
    sentinel = servers.start(f"sentinel monitor main 127.0.0.1 {one.port} 1", sentinel=True)
    with pytest.raises(ConfigError, match=r"a Sentinel answers at .*; write redis\+sentinel://"):
        await look(f"redis://{sentinel.address}", 5.0)


@asynccontextmanager
async def tls_before(server: Process, made: tuple[Path, Path]) -> AsyncIterator[str]:
    """host:port of a proxy that ends TLS, and asks for a certificate of the same authority."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(made[0]))
    context.load_cert_chain(*made)
    context.verify_mode = ssl.CERT_REQUIRED

    async def flow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", server.port)
        await asyncio.gather(flow(reader, inner_writer), flow(inner_reader, writer))

    proxy = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with proxy:
        yield f"127.0.0.1:{proxy.sockets[0].getsockname()[1]}"


async def test_a_run_through_tls_with_certificates_of_its_own(
    server: Process, tmp_path: Path
) -> None:
    """The pip package's server is built without TLS: a proxy before it ends the TLS."""
    made = certificate(tmp_path)
    async with tls_before(server, made) as address:
        files = f"ssl_ca_certs={made[0]}&ssl_certfile={made[0]}&ssl_keyfile={made[1]}"
        await whole_run(f"rediss://{address}?{files}", "secret")
        wrong: list[tuple[str, type[PairloopError], str]] = [
            (f"rediss://{address}", UnreachableError, r"TLS .* fails: .* verify .*; the options"),
            (f"rediss://{address}?{files}&ssl_min_version=new", ConfigError, "'ssl_min_version'"),
            (f"rediss://{address}?ssl_ca_certs=/no", ConfigError, "is /no, where no file is"),
            (f"rediss://{address}?ssl_ca_certs={made[0]}", UnreachableError, "or give the certif"),
            (f"redis://{address}", UnreachableError, "does not answer: start it"),
        ]
        for url, kind, said in wrong:
            with pytest.raises(kind, match=said):
                await look(url, 1.0)
