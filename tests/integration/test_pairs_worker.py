"""The pairing worker between a real Redis and a scripted reward."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from orchestrator.episodes import EpisodeStore, State
from pairloop.data.v1.pair_pb2 import Score
from pairloop.data.v1.rollout_pb2 import Prompt, Rollout, Sample, VersionSpan
from services.errors import LineageError, PairloopError, UnreachableError, WorkerError
from services.pairs.settings import PairSettings
from services.pairs.worker import PairWorker, Queues
from services.queues.items import Item
from services.queues.queues import RunQueues
from services.queues.settings import QueueSettings
from services.telemetry.record.events import Event, PairExample

SETTINGS = QueueSettings(retry_s=0, credits=64, max_failures=3, max_deaths=3, reclaim_idle_s=300.0)


class Lengths:
    """Scores an answer by its characters; fails as it is told, for the prompts it is told."""

    def __init__(self, failures: dict[int, list[PairloopError]] | None = None) -> None:
        self.failures = failures or {}
        self.calls: list[int] = []

    async def score(self, prompt: Prompt, samples: Sequence[Sample]) -> list[Score]:
        self.calls.append(prompt.index)
        await asyncio.sleep(0.001 * (prompt.index % 3))
        if self.failures.get(prompt.index):
            raise self.failures[prompt.index].pop(0)
        totals = [float(len(sample.text)) for sample in samples]
        return [Score(total=total, parts={"length": total}) for total in totals]

    async def describe(self) -> str:
        return "1.0*characters"


class _Redelivers:
    """The real queues, but for items that were handed out before."""

    def __init__(self, queues: RunQueues, items: list[Item]) -> None:
        self._items = items
        self.commit_pair = queues.commit_pair
        self.commit_drop = queues.commit_drop
        self.fail = queues.fail

    async def take(self, stream: str, consumer: str, count: int, block_s: float) -> list[Item]:
        taken, self._items = self._items[:count], self._items[count:]
        await asyncio.sleep(0.0 if taken else 0.02)
        return taken


def prompts(run: str, count: int, episode: int = 1) -> list[Prompt]:
    return [
        Prompt(id=f"{run}/e{episode}/p{i}", run=run, episode=episode, index=i, text=f"prompt {i}")
        for i in range(count)
    ]


def rollout_of(prompt: Prompt, texts: Sequence[str], version: int = 0) -> Rollout:
    spans = [VersionSpan(version=version, token_count=1)]
    samples = [
        Sample(index=i, text=text, token_ids=[1] * len(text), policy_versions=spans)
        for i, text in enumerate(texts)
    ]
    return Rollout(prompt=prompt, samples=samples, worker_id="rollout-0")


@pytest.fixture
async def queues(redis_url: str, run_name: str) -> AsyncIterator[RunQueues]:
    queues = await RunQueues.open(redis_url, run_name, SETTINGS)
    yield queues
    await queues.close()


async def roll_out(
    queues: RunQueues,
    redis_url: str,
    run: str,
    answers: list[list[str]],
    episodes: int = 1,
    stale: int = 0,
) -> None:
    """Bring a prompt a list of answers to the rollout stream, all sampled by version 0."""
    store = await EpisodeStore.open(redis_url, run, 5.0)
    await store.create(episodes, len(answers))
    for episode in range(1, episodes + 1):
        await store.move(episode, State.SAMPLING)
        sent = prompts(run, len(answers), episode)
        for prompt in sent:
            prompt.max_staleness = stale
        await queues.dispatch(episode, sent)
    await store.close()
    for item in await queues.take("prompts", "rollout-0", episodes * len(answers), 1.0):
        prompt = Prompt.FromString(item.payload)
        assert await queues.commit_rollout(item, rollout_of(prompt, answers[prompt.index]))


def worker(queues: Queues, scorer: Lengths, events: list[Event]) -> PairWorker:
    return PairWorker(
        queues,
        scorer,
        events.append,
        PairSettings(concurrency=4, min_margin=2.0),
        consumer="pairs-0",
        stage="online",
    )


async def work(pairing: PairWorker, queues: RunQueues, finished: int) -> None:
    """Run until so many prompts are paired or dropped."""
    running = asyncio.create_task(pairing.run())
    async with asyncio.timeout(30):
        while not running.done():
            counters = await queues.counters(1)
            dropped = sum(n for name, n in counters.items() if name.startswith("dropped:"))
            if counters.get("paired", 0) + dropped >= finished:
                break
            await asyncio.sleep(0.02)
        pairing.stop()
        await running


async def test_each_group_ends_as_a_pair_or_a_reason(
    queues: RunQueues, redis_url: str, run_name: str
) -> None:
    answers = [["aaaa", "b", "cc"], ["aa", "bb"], ["a", "a"], ["aa", "b"]]
    answers += [["x" * (i + 3), "y"] for i in range(8)]
    await roll_out(queues, redis_url, run_name, answers)
    events: list[Event] = []
    pairing = worker(queues, Lengths(), events)
    await work(pairing, queues, len(answers))

    pairs = await queues.pairs(1)
    assert [pair.prompt.index for pair in pairs] == [0, *range(4, 12)]
    assert (pairs[0].chosen.text, pairs[0].rejected.text) == ("aaaa", "b")
    assert (pairs[0].margin, pairs[0].length_gap) == (3.0, 3)
    assert pairs[0].provenance.scorer == "1.0*characters"
    counters = await queues.counters(1)
    assert {name: n for name, n in counters.items() if name.startswith("dropped:")} == {
        "dropped:TIE": 1,
        "dropped:SINGLE_ANSWER": 1,
        "dropped:MARGIN": 1,
    }
    stats = pairing.stats(1)
    assert (stats["groups"], stats["pairs"]) == (12.0, 9.0)
    assert stats["reward_mean"] == stats["reward_length"] == stats["answer_tokens"]
    shown = [event.prompt for event in events if isinstance(event, PairExample)]
    assert shown == ["prompt 0", *(f"prompt {i}" for i in range(4, 9))]
    assert await queues.take("rollouts", "pairs-0", 1, 0.0) == []


async def test_a_failing_group_is_tried_again_and_then_a_dead_letter(
    queues: RunQueues, redis_url: str, run_name: str
) -> None:
    await roll_out(queues, redis_url, run_name, [["aaaa", "b"]] * 3)
    scorer = Lengths(
        {0: [WorkerError("no\nluck")], 1: [WorkerError(f"broken {i}") for i in range(9)]}
    )
    pairing = worker(queues, scorer, [])
    await work(pairing, queues, 3)
    assert [pair.prompt.index for pair in await queues.pairs(1)] == [0, 2]
    assert sorted(scorer.calls) == [0, 0, 1, 1, 1, 2]
    assert (await queues.counters(1))["dropped:DEAD_LETTER"] == 1
    letters = await queues.dead_letters()
    assert [letter.error for letter in letters] == ["WorkerError: broken 2"]
    assert pairing.stats(1)["groups"] == 2.0


@pytest.mark.parametrize("error", [UnreachableError("reward is gone"), LineageError("tokenizer")])
async def test_a_reward_that_cannot_answer_ends_the_worker_and_loses_nothing(
    queues: RunQueues, redis_url: str, run_name: str, error: PairloopError
) -> None:
    await roll_out(queues, redis_url, run_name, [["aaaa", "b"]] * 6)
    with pytest.raises(type(error), match=str(error)):
        await work(worker(queues, Lengths({2: [error]}), []), queues, 6)
    assert "dropped:DEAD_LETTER" not in await queues.counters(1)
    # a successor of the same name gets what was left
    again = await RunQueues.open(redis_url, run_name, SETTINGS)
    await work(worker(again, Lengths(), []), again, 6)
    await again.close()
    assert [pair.prompt.index for pair in await queues.pairs(1)] == [0, 1, 2, 3, 4, 5]


async def test_a_stale_group_is_dropped_unscored(
    queues: RunQueues, redis_url: str, run_name: str
) -> None:
    await roll_out(queues, redis_url, run_name, [["aaaa", "b"], ["cccc", "d"]], 3, stale=1)
    scorer = Lengths()
    pairing = worker(queues, scorer, [])
    running = asyncio.create_task(pairing.run())
    async with asyncio.timeout(30):
        while (await queues.counters(3)).get("dropped:STALE", 0) < 2:
            await asyncio.sleep(0.02)
        while len(await queues.pairs(1)) + len(await queues.pairs(2)) < 4:
            await asyncio.sleep(0.02)
        pairing.stop()
        await running
    assert len(scorer.calls) == 4
    assert pairing.stats(3) == {"groups": 0.0, "pairs": 0.0}


async def test_a_group_that_is_delivered_twice_counts_once(
    queues: RunQueues, redis_url: str, run_name: str
) -> None:
    await roll_out(queues, redis_url, run_name, [["aaaa", "b"], ["cccc", "d"]])
    eager = await RunQueues.open(
        redis_url, run_name, SETTINGS.model_copy(update={"reclaim_idle_s": 0.001})
    )
    slow = await queues.take("rollouts", "slow", 2, 1.0)
    assert len(slow) == 2
    await asyncio.sleep(0.05)
    events: list[Event] = []
    first = worker(eager, Lengths(), events)
    await work(first, eager, 2)
    scorer = Lengths()
    late = worker(_Redelivers(queues, slow), scorer, events)
    running = asyncio.create_task(late.run())
    async with asyncio.timeout(30):
        while len(scorer.calls) < 2:
            await asyncio.sleep(0.02)
    late.stop()
    await running
    await eager.close()
    assert first.stats(1)["groups"] == 2.0
    assert late.stats(1) == {"groups": 0.0, "pairs": 0.0}
    assert len(await queues.pairs(1)) == 2
    assert len(events) == 2  # the examples of `first`
