"""Workers that crash, stall, fail and race, in random order: every prompt ends exactly once."""

import asyncio
import random
import uuid
from collections import Counter
from typing import get_args

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.episodes import EpisodeStore, State
from pairloop.data.v1.pair_pb2 import DropReason
from services.queues.items import Item, StreamName
from services.queues.ledger import ledger_audit
from services.queues.queues import RunQueues
from services.queues.settings import QueueSettings
from tests.integration.test_queues import pair_of, prompts, rollout_of

STREAMS: tuple[StreamName, ...] = get_args(StreamName)
SETTINGS = QueueSettings(retry_s=0, credits=12, max_failures=3, max_deaths=3, reclaim_idle_s=0.002)


class Workers:
    """Three consumers of a run; what they hold is lost when one crashes."""

    def __init__(self, url: str, run: str, rng: random.Random) -> None:
        self.url, self.run, self.rng = url, run, rng
        self.held: list[tuple[StreamName, Item]] = []

    async def act(self, queues: RunQueues) -> None:
        action = self.rng.choice(("take", "take", "commit", "commit", "both", "fail", "crash"))
        stream = self.rng.choice(STREAMS)
        if action == "take":
            consumer = f"w{self.rng.randrange(3)}"
            count = self.rng.randint(1, 3)
            self.held += [(stream, i) for i in await queues.take(stream, consumer, count, 0.0)]
        elif self.held and action == "commit":
            await self.commit(queues, *self.held.pop(self.rng.randrange(len(self.held))))
        elif self.held and action == "both":
            held = self.rng.choice(self.held)
            await asyncio.gather(self.commit(queues, *held), self.commit(queues, *held))
        elif self.held and action == "fail":
            stream, item = self.held.pop()
            await queues.fail(stream, item, "failed on purpose")
        elif action == "crash":
            self.held.clear()

    async def commit(self, queues: RunQueues, stream: StreamName, item: Item) -> bool:
        if stream == "prompts":
            return await queues.commit_rollout(item, rollout_of(item))
        pair = pair_of(item)
        if pair.prompt.index % 3 == 0:
            return await queues.commit_drop(item, DropReason.DROP_REASON_TIE)
        return await queues.commit_pair(item, pair)


async def train(queues: RunQueues) -> int:
    ids = [pair.id for pair in await queues.pairs(1)]
    return await queues.commit_trained(1, 1, ids, await queues.dropped(1))


async def play(url: str, seed: int, count: int, steps: int) -> None:
    rng = random.Random(seed)
    run = f"crash-{uuid.uuid4().hex[:12]}"
    store = await EpisodeStore.open(url, run, 5.0)
    await store.create(1, count)
    await store.move(1, State.SAMPLING)
    queues = await RunQueues.open(url, run, SETTINGS)
    workers, work = Workers(url, run, rng), prompts(run, count)
    planned = {1: [prompt.id for prompt in work]}
    for _ in range(steps):
        if rng.random() < 0.3:
            await queues.dispatch(1, work)
        await workers.act(queues)
    assert ledger_audit(await queues.ledger(1), planned, finished=False) == []
    async with asyncio.timeout(60):
        while True:
            sent = await queues.dispatch(1, work)
            for stream in STREAMS:
                for item in await queues.take(stream, "last", 10, 0.0):
                    await workers.commit(queues, stream, item)
            if not sent.refused and (await store.get(1)).in_flight == 0:
                break
    trained = await train(queues)
    episode = await store.get(1)
    events = await queues.ledger(1)
    assert ledger_audit(events, planned) == []
    kinds = Counter(event.kind for event in events)
    assert kinds["dispatched"] == count
    assert kinds["trained"] == trained == episode.trained
    assert kinds["trained"] + kinds["dropped"] == count == episode.dispatched
    assert kinds["paired"] == episode.paired == trained
    assert sum(episode.dropped.values()) == kinds["dropped"]
    assert episode.dropped["DEAD_LETTER"] == len(await queues.dead_letters())
    assert await queues.credits_in_use() == 0
    await queues.close()
    await store.close()


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 12), steps=st.integers(0, 120))
def test_every_prompt_ends_exactly_once(redis_url: str, seed: int, count: int, steps: int) -> None:
    asyncio.run(play(redis_url, seed, count, steps))
