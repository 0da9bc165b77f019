"""A primary that dies under a run, and the replica that Sentinel puts in its place."""

import asyncio
import itertools
from dataclasses import dataclass

import pytest

from orchestrator.episodes import EpisodeStore, State
from services.errors import UnreachableError
from services.queues.client import Patience, look
from services.queues.ledger import ledger_audit
from services.queues.queues import RunQueues
from services.queues.settings import QueueSettings
from tests.integration.redis_servers import Process, Servers, until
from tests.integration.test_queues import pair_of, prompts, rollout_of

PROMPTS = 40
SETTINGS = QueueSettings(credits=64, outage_s=60.0, reclaim_idle_s=1.0)


@dataclass
class Watched:
    primary: Process
    replica: Process
    sentinel: Process

    def url(self, service: str = "main", sentinels: str = "w4tch") -> str:
        """The first of the Sentinels is nobody: as one whose machine is gone."""
        hosts = f"127.0.0.1:1,{self.sentinel.address}"
        return f"redis+sentinel://:s3cret@{hosts}/{service}?sentinel_password={sentinels}"


@pytest.fixture
def watched(servers: Servers) -> Watched:
    secret = ["requirepass s3cret", "masterauth s3cret", "appendonly yes"]
    primary = servers.start(*secret, "repl-diskless-sync no")
    replica = servers.start(*secret, f"replicaof 127.0.0.1 {primary.port}")
    with replica.asked("s3cret") as asked:
        until(lambda: asked.info("replication").get("master_link_status") == "up")
    sentinel = servers.start(
        "requirepass w4tch",
        f"sentinel monitor main 127.0.0.1 {primary.port} 1",
        "sentinel auth-pass main s3cret",
        "sentinel down-after-milliseconds main 300",
        "sentinel failover-timeout main 2000",
        sentinel=True,
    )
    with sentinel.asked("w4tch") as asked:
        until(lambda: asked.sentinel_master("main")["num-slaves"] == 1)
    return Watched(primary, replica, sentinel)


async def test_a_run_goes_on_with_the_replica_and_nothing_is_lost_or_doubled(
    watched: Watched,
) -> None:
    told: list[str] = []
    store = await EpisodeStore.open(watched.url(), "run", 5.0, 0, Patience(60.0, told.append))
    await store.create(1, PROMPTS)
    await store.move(1, State.SAMPLING)
    everybody = [await RunQueues.open(watched.url(), "run", SETTINGS) for _ in range(3)]
    loop, engine, pairing = everybody
    work = prompts("run", PROMPTS)

    async def sample() -> None:
        while True:
            for item in await engine.take("prompts", "engine", 2, 1.0):
                await engine.commit_rollout(item, rollout_of(item))
                await asyncio.sleep(0.05)

    async def pair() -> None:
        while True:
            for item in await pairing.take("rollouts", "pairing", 2, 1.0):
                await pairing.commit_pair(item, pair_of(item))

    working = [asyncio.create_task(sample()), asyncio.create_task(pair())]
    async with asyncio.timeout(60):
        for tries in itertools.count():
            # In order and again and again: what the replica did not get yet is dispatched anew.
            await loop.dispatch(1, work)
            counted = await loop.counters(1)
            if counted["paired"] == PROMPTS:
                break
            if watched.primary.process.poll() is None and counted["paired"] > PROMPTS // 4:
                assert tries
                watched.primary.kill()
            await asyncio.sleep(0.05)
    assert not any(task.done() for task in working)
    for task in working:
        task.cancel()
    await asyncio.gather(*working, return_exceptions=True)
    with watched.replica.asked("s3cret") as asked:
        assert asked.role()[0] == b"master"
    await store.move(1, State.TRAINING)
    assert sorted(pair.id for pair in await loop.pairs(1)) == sorted(each.id for each in work)
    assert await loop.commit_trained(1, 1, [each.id for each in work], {}) == PROMPTS
    assert ledger_audit(await loop.ledger(1), {1: [each.id for each in work]}) == []
    assert await loop.credits_in_use() == 0
    for each in (*everybody, store):
        await each.close()


async def test_who_cannot_say_where_the_primary_is_is_named(watched: Watched) -> None:
    with pytest.raises(UnreachableError, match="own are the options sentinel_username") as caught:
        await look(watched.url(sentinels="wr0ng"), 5.0)
    assert "wr0ng" not in str(caught.value)
    assert "s3cret" not in str(caught.value)
    with pytest.raises(UnreachableError, match="knows a primary that lives: check the hosts and"):
        await look(watched.url(service="other"), 5.0)
    assert await look(watched.url(), 5.0) == []
