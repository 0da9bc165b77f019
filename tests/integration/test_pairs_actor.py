"""The pairing actor in a real Ray, between a real Redis and a real gRPC gateway."""

import asyncio
from functools import partial

import pytest

from orchestrator.episodes import EpisodeStore, State
from pairloop.data.v1.rollout_pb2 import Prompt, Rollout, Sample, VersionSpan
from services.errors import StateError, UnreachableError, WorkerDiedError
from services.pairs.actor import start_pairing
from services.pairs.settings import PairSettings
from services.queues.queues import RunQueues
from services.queues.settings import QueueSettings
from services.reward.client import GrpcScorer
from services.reward.composite import build
from services.reward.gateway import Gateway
from services.reward.serve_app import score_request
from services.reward.settings import RewardSettings
from services.telemetry.record.events import PairExample
from services.telemetry.record.sink import start_sink

REWARD = RewardSettings.model_validate({"parts": [{"kind": "checker"}], "outage_s": 0})
QUEUES = QueueSettings()


class Handle:
    """The reward in this process, shaped like a Serve handle."""

    class score:
        @staticmethod
        async def remote(payload: bytes) -> object:
            return score_request(build(REWARD, "."), payload)

    class describe:
        @staticmethod
        async def remote() -> bytes:
            return b""


async def test_an_actor_pairs_reports_and_stops(
    cluster: None, redis_url: str, run_name: str
) -> None:
    store = await EpisodeStore.open(redis_url, run_name, 5.0)
    await store.create(1, 2)
    await store.move(1, State.SAMPLING)
    queues = await RunQueues.open(redis_url, run_name, QUEUES)
    prompts = [
        Prompt(id=f"{run_name}/e1/p{i}", run=run_name, episode=1, index=i, metadata={"answer": "a"})
        for i in range(2)
    ]
    await queues.dispatch(1, prompts)
    spans = [VersionSpan(version=0, token_count=1)]
    samples = [Sample(index=i, text=t, policy_versions=spans) for i, t in enumerate("ab")]
    for item in await queues.take("prompts", "r", 2, 1.0):
        rollout = Rollout(prompt=Prompt.FromString(item.payload), samples=samples)
        await queues.commit_rollout(item, rollout)
    gateway = Gateway(REWARD)
    address = await gateway.start(Handle)
    sink, actor = start_sink(), start_pairing("pairs-0")
    with pytest.raises(StateError, match="call start first"):
        await actor.run()

    connect = partial(RunQueues.open, redis_url, run_name, QUEUES)
    scorer = partial(GrpcScorer, address, REWARD, "")
    start = {
        "stage": "online",
        "sink": sink.actor,
    }
    await actor.start(connect, scorer, PairSettings(), consumer="pairs-0.1", **start)
    running = asyncio.ensure_future(actor.run())
    async with asyncio.timeout(60):
        while len(await queues.pairs(1)) < 2:
            await asyncio.sleep(0.05)
        stats = await actor.stats(1)
        events = await sink.take(10.0)
        await actor.ping()
        assert not running.done()
        actor.kill()
        with pytest.raises(WorkerDiedError, match=r"pairs-0 died: it was ended by ray\.kill"):
            await running
    assert (stats["groups"], stats["pairs"], stats["reward_mean"]) == (2.0, 2.0, 0.5)
    assert isinstance(events[0], PairExample)
    await gateway.stop()

    other = start_pairing("pairs-0")
    await other.start(connect, scorer, PairSettings(), consumer="pairs-0.2", **start)
    with pytest.raises(UnreachableError, match=f"{address} was not reachable for 0 s"):
        await other.run()
    await queues.close()
    await store.close()
