"""One orchestrator a run: a second is refused or takes over, and the first is heard no more."""

import asyncio
import json
from dataclasses import asdict, replace

import pytest

from orchestrator.episodes import EpisodeStore, State
from services.errors import ReplacedError, StateError
from services.queues import run_lease
from services.queues.queues import RunQueues
from services.queues.run_lease import Holder, RunLease
from services.queues.settings import QueueSettings
from tests.integration.test_queues import prompts, rollout_of

LASTS_S = 1.5


async def take(url: str, run: str, told: list[str] | None = None) -> RunLease:
    waiting = told.append if told is not None else lambda who: None
    return await RunLease.take(url, run, LASTS_S, 5.0, waiting)


def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on leases are taken by a process of another machine."""
    away = replace(Holder.this_process(), host="node-7", boot="another", pid=41)
    monkeypatch.setattr(Holder, "this_process", classmethod(lambda cls: away))


async def test_a_second_orchestrator_is_refused_with_who_holds_the_run(
    redis_url: str, run_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(monkeypatch)
    first = await take(redis_url, run_name)
    keeping = asyncio.create_task(first.keep())
    with pytest.raises(StateError, match="held by process 41 on node-7, since 20"):
        await take(redis_url, run_name)
    keeping.cancel()
    await first.end()
    second = await take(redis_url, run_name)
    assert (first.epoch, second.epoch) == (1, 2)
    await second.end()


async def test_a_lease_that_nobody_renews_is_taken_over_and_its_holder_refused(
    redis_url: str, run_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(monkeypatch)
    told: list[str] = []
    first = await take(redis_url, run_name)
    settings = QueueSettings()
    store = await EpisodeStore.open(redis_url, run_name, 5.0, first.epoch)
    await store.create(1, 2)
    await store.move(1, State.SAMPLING)
    queues = await RunQueues.open(redis_url, run_name, settings, first.epoch)
    await queues.dispatch(1, prompts(run_name, 2)[:1])
    (item,) = await queues.take("prompts", "rollout-0.1", 1, 0.0)

    second = await take(redis_url, run_name, told)
    assert second.epoch == 2
    assert told == ["process 41 on node-7, since " + told[0].split("since ")[1]]
    # What the first started can change nothing any more, whatever it is.
    with pytest.raises(ReplacedError, match="another orchestrator has taken this run over"):
        await queues.commit_rollout(item, rollout_of(item))
    with pytest.raises(ReplacedError):
        await queues.dispatch(1, prompts(run_name, 2)[1:])
    with pytest.raises(ReplacedError):
        await queues.take("prompts", "rollout-0.1", 1, 0.0)
    with pytest.raises(ReplacedError):
        await store.move(1, State.TRAINING)
    with pytest.raises(ReplacedError, match="taken over by process 41 on node-7"):
        await asyncio.wait_for(first.keep(), 10)
    # What it held goes to the second's workers at once, and is blamed for nothing.
    theirs = await RunQueues.open(redis_url, run_name, settings, second.epoch)
    assert await theirs.give_back_all() == 1
    (again,) = await theirs.take("prompts", "rollout-0.2", 1, 0.0)
    assert (again.prompt_id, again.deaths) == (item.prompt_id, 0)
    assert await theirs.commit_rollout(again, rollout_of(again))
    for each in (queues, theirs, store):
        await each.close()
    await first.end()  # does not end what is the second's by now
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(second.keep(), 1.0)
    await second.end()


async def test_nobody_waits_for_a_process_of_this_machine_that_ended(
    redis_url: str, run_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_lease, "_POLL_S", 1e6)
    dead = replace(Holder.this_process(), pid=2**22 + 1)  # above what the kernel gives out
    assert dead.gone
    assert not Holder.this_process().gone
    first = await take(redis_url, run_name)
    first._holder = json.dumps(asdict(dead))
    assert await first._client.script("keep_lease", first._keys, [*first._said(), 1]) == b""
    second = await asyncio.wait_for(take(redis_url, run_name), 5)
    assert second.epoch == 2
    await first.end()
    await second.end()


async def test_a_server_that_lost_the_lease_gives_it_back_to_its_holder(
    redis_url: str, run_name: str
) -> None:
    lease = await take(redis_url, run_name)
    await lease._client._redis.unlink(*lease._keys)
    queues = await RunQueues.open(redis_url, run_name, QueueSettings(), lease.epoch)
    await queues.take("prompts", "rollout-0.1", 1, 0.0)  # nobody newer is known: not refused
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(lease.keep(), 1.0)
    later = await take(redis_url, run_name + "x")
    assert (lease.epoch, int(await lease._client.get(lease._keys[1]) or 0)) == (1, 1)
    await queues.close()
    await lease.end()
    await later.end()


async def test_a_server_that_fell_back_to_an_older_lease_gives_it_to_the_newer_holder(
    redis_url: str, run_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_lease, "_POLL_S", 1e6)
    first = await take(redis_url, run_name)
    dead = json.dumps(asdict(replace(Holder.this_process(), pid=2**22 + 1)))
    first._holder = dead
    assert await first._client.script("keep_lease", first._keys, [*first._said(), 1]) == b""
    second = await take(redis_url, run_name)
    # It loses that the second took it: the first's lease is there again, and its epoch.
    await first._client._redis.unlink(*first._keys)
    assert await first._client.script("keep_lease", first._keys, [*first._said(), 1]) == b""
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(second.keep(), 1.0)
    with pytest.raises(ReplacedError):
        await asyncio.wait_for(first.keep(), 10)
    await first.end()
    await second.end()
