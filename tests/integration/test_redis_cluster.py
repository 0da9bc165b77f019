"""The queues on a Redis Cluster: three nodes, and a replica that takes over."""

import asyncio
from collections.abc import Iterator

import pytest
from redis.crc import key_slot

from orchestrator.episodes import EpisodeStore, State
from pairloop.data.v1.pair_pb2 import DropReason
from services.errors import ConfigError, UnreachableError
from services.queues.client import Patience, look
from services.queues.keys import Keys
from services.queues.ledger import ledger_audit
from services.queues.queues import RunQueues
from services.queues.run_lease import RunLease
from services.queues.settings import QueueSettings
from tests.integration.redis_servers import Process, Servers, free_port
from tests.integration.test_queues import pair_of, prompts, rollout_of
from tests.integration.test_redis_access import allow, documented_rights, whole_run

SETTINGS = QueueSettings(credits=64, outage_s=30.0)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Process]]:
    servers = Servers(tmp_path_factory.mktemp("cluster"))
    yield servers.cluster()
    servers.end()


def slot_of(run: str) -> int:
    return int(key_slot(Keys(run).epoch.encode()))


def runs_on_every_node() -> list[str]:
    """A run for each third of the slots."""
    found: dict[int, str] = {}
    for number in range(100):
        found.setdefault(slot_of(f"run-{number}") * 3 // 16384, f"run-{number}")
    return [found[third] for third in range(3)]


async def test_a_run_on_each_node_of_a_cluster_goes_all_the_way(nodes: list[Process]) -> None:
    """From any of them: the address needs no more than one."""
    for run, node in zip(runs_on_every_node(), nodes[1:], strict=True):
        url = f"redis://{node.address}"
        lease = await RunLease.take(url, run, 5.0, 5.0)
        store = await EpisodeStore.open(url, run, 5.0, lease.epoch)
        queues = await RunQueues.open(url, run, SETTINGS, lease.epoch)
        await store.create(1, 4)
        await store.move(1, State.SAMPLING)
        work = prompts(run, 4)
        assert (await queues.dispatch(1, work)).sent == 4
        for item in await queues.take("prompts", "a", 4, 1.0):
            assert await queues.commit_rollout(item, rollout_of(item))
        *kept, last = await queues.take("rollouts", "p", 4, 1.0)
        for item in kept:
            assert await queues.commit_pair(item, pair_of(item))
        assert await queues.give_back("rollouts", "p", died=True) == 1
        (last,) = await queues.take("rollouts", "q", 4, 1.0)
        assert last.deaths == 1
        assert await queues.commit_drop(last, DropReason.DROP_REASON_TIE)
        assert [pair.id for pair in await queues.pairs(1)] == [p.id for p in work[:3]]
        outcome = [item.prompt_id for item in kept], {last.prompt_id: "TIE"}
        await store.move(1, State.TRAINING)
        assert await queues.commit_trained(1, 1, *outcome) == 3
        assert await queues.published(1, 1)
        assert ledger_audit(await queues.ledger(1), {1: [p.id for p in work]}) == []
        assert [episode.trained for episode in await store.list()] == [3]
        for to in (State.PUBLISHING, State.COMPLETED):
            await store.move(1, to)
        assert await queues.forget(1)
        await queues.expire(60)
        for each in (queues, store):
            await each.close()
        await lease.end()
    for node in nodes[:3]:
        with node.asked() as asked:
            keys = asked.keys("*")
            assert keys
            assert [key for key in keys if not 0 < asked.ttl(key) <= 60] == []


async def test_more_callers_than_connections_wait_for_each_other(nodes: list[Process]) -> None:
    queues = await RunQueues.open(f"redis://{nodes[0].address}", "crowd", SETTINGS)
    waiting = [queues.take("prompts", f"w{n}", 1, 0.1) for n in range(100)]
    assert await asyncio.gather(*waiting) == [[]] * 100
    await queues.close()


async def test_a_cluster_is_said_to_keep_nothing_by_the_names_of_its_nodes(
    nodes: list[Process],
) -> None:
    (doubt,) = await look(f"redis://{nodes[0].address}", 5.0)
    assert "keeps nothing on disk (no append-only file, no snapshots)" in doubt
    assert all(node.address in doubt for node in nodes[1:3])


async def test_a_cluster_has_one_database(nodes: list[Process]) -> None:
    with pytest.raises(ConfigError, match=r"names a database that is not there: .*; leave it out"):
        await look(f"redis://{nodes[0].address}/2", 5.0)


async def test_a_user_with_the_documented_rights_can_run_on_a_cluster(
    nodes: list[Process],
) -> None:
    rights = documented_rights()
    url = f"redis://worker:p4ss@{nodes[2].address}"
    for node in nodes:
        allow(node, *rights)
    with pytest.raises(UnreachableError, match="does not let its user run CLUSTER; grant, with"):
        await whole_run(url, "denied")
    for node in nodes:
        allow(node, *rights, "+cluster|slots", "+asking")
    for run in runs_on_every_node():
        await whole_run(url, run + "-allowed")


async def test_a_cluster_that_came_back_elsewhere_is_found_by_the_address(
    servers: Servers,
) -> None:
    """As one whose machines got other addresses: none of the nodes that were known is there."""
    here, there = free_port(), free_port()
    old = servers.cluster_of_one(here)
    queues = await RunQueues.open(f"redis://127.0.0.1:{here},127.0.0.1:{there}", "run", SETTINGS)
    assert await queues.credits_in_use() == 0
    old.kill()
    with servers.cluster_of_one(there).asked() as asked:
        asked.set(Keys("run").credits, 7)
    async with asyncio.timeout(30):
        assert await queues.credits_in_use() == 7
    await queues.close()


# The last here: it leaves a cluster of three.
async def test_a_replica_takes_over_from_its_primary(nodes: list[Process]) -> None:
    run = next(n for n in map(str, range(100)) if slot_of(n) < 5461)
    told: list[str] = []
    # The first is nobody: as a node that is gone when a worker starts.
    url = f"redis://127.0.0.1:1,{nodes[0].address}"
    store = await EpisodeStore.open(url, run, 5.0, 0, Patience(30.0, told.append))
    queues = await RunQueues.open(url, run, SETTINGS)
    await store.create(2, 8)
    await store.move(1, State.SAMPLING)
    assert (await queues.dispatch(1, prompts(run, 4))).sent == 4
    with nodes[0].asked() as asked:
        assert asked.wait(1, 5000) == 1
    nodes[0].kill()
    async with asyncio.timeout(30):
        assert [episode.dispatched for episode in await store.list()] == [4, 0]
        assert (await queues.dispatch(1, prompts(run, 8))).sent == 4
        assert len(await queues.take("prompts", "a", 8, 5.0)) == 8
    assert told
    assert told[-1].startswith("Redis is back after ")
    with nodes[3].asked() as asked:
        assert asked.role()[0] == b"master"
    await queues.close()
    await store.close()
