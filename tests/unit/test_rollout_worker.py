import asyncio
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pytest

from pairloop.data.v1.rollout_pb2 import Prompt, Rollout, SamplingSettings
from pairloop.data.v1.weights_pb2 import Canary, WeightManifest
from services.errors import DataError, UnreachableError
from services.rollout.worker import RolloutWorker
from services.weights.manifest import build_manifest, weights_sha256
from tests.fake_engine import FakeEngine


@dataclass
class CrowdEngine(FakeEngine):
    """Remembers the most prompts that ran at once."""

    most: int = 0

    def step(self) -> list[Rollout]:
        self.most = max(self.most, self.running)
        return super().step()


def prompt(index: int, n: int = 4, tokens: int = 3) -> Prompt:
    return Prompt(
        id=f"run/e1/p{index}",
        index=index,
        token_ids=range(3, 3 + tokens),
        metadata={"answer": "one two three"},
        sampling=SamplingSettings(n=n, temperature=1.0, top_p=1.0, max_tokens=8, seed=index),
    )


@dataclass(frozen=True)
class Item:
    payload: bytes


@dataclass
class MemoryQueue:
    """Prompts in a list; tells when all of them are committed or failed."""

    waiting: list[Item]
    history: list[tuple[str, str]] = field(default_factory=list)
    rollouts: dict[str, Rollout] = field(default_factory=dict)
    empty: asyncio.Event = field(default_factory=asyncio.Event)
    broken: bool = False
    _left: int = 0

    def __post_init__(self) -> None:
        self._left = len(self.waiting)

    async def take(
        self, stream: Literal["prompts"], consumer: str, count: int, block_s: float
    ) -> list[Item]:
        if self.broken:
            raise UnreachableError("redis does not answer")
        await asyncio.sleep(0 if self.waiting else min(block_s, 0.001))
        taken, self.waiting = self.waiting[:count], self.waiting[count:]
        return taken

    async def commit_rollout(self, item: Item, rollout: Rollout) -> bool:
        self.rollouts[rollout.prompt.id] = rollout
        self._done("committed", rollout.prompt.id)
        return True

    async def fail(self, stream: Literal["prompts"], item: Item, error: str) -> bool:
        self._done("failed", error)
        return False

    def _done(self, kind: str, detail: str) -> None:
        self.history.append((kind, detail))
        self._left -= 1
        if self._left == 0:
            self.empty.set()


def queue_of(*prompts: Prompt) -> MemoryQueue:
    return MemoryQueue([Item(each.SerializeToString()) for each in prompts])


def manifest(version: int) -> tuple[WeightManifest, dict[str, np.ndarray]]:
    tensors = {"w": np.full(2, version, np.float32)}
    return build_manifest("run", version, 0, tensors, {"w": "float32"}, Canary()), tensors


async def rounds(count: int) -> None:
    """Let every other task go on so many times: a worker that may take needs only a few."""
    for _ in range(count):
        await asyncio.sleep(0)


async def drained(worker: RolloutWorker, queue: MemoryQueue) -> None:
    running = asyncio.create_task(worker.run(queue))
    await asyncio.wait_for(queue.empty.wait(), 10.0)
    worker.stop()
    await asyncio.wait_for(running, 10.0)


async def test_every_prompt_is_answered_once_and_room_is_kept() -> None:
    engine = CrowdEngine(max_num_seqs=12, steps=3)
    queue = queue_of(*(prompt(i) for i in range(20)))
    worker = RolloutWorker(engine, "w0")
    await drained(worker, queue)
    assert sorted(queue.rollouts) == sorted(prompt(i).id for i in range(20))
    assert len(queue.history) == 20
    assert engine.most == 3


async def test_a_bad_item_goes_back_and_the_rest_is_answered() -> None:
    queue = queue_of(prompt(0), prompt(1, tokens=300), prompt(2))
    queue.waiting[2:2] = [Item(b"\xff\xff not a prompt")]
    queue._left += 1
    worker = RolloutWorker(FakeEngine(), "w0")
    await drained(worker, queue)
    assert sorted(queue.rollouts) == [prompt(0).id, prompt(2).id]
    errors = [detail for kind, detail in queue.history if kind == "failed"]
    assert len(errors) == 2
    assert "run/e1/p1: 308 tokens do not fit 256" in errors[0]


async def test_a_broken_queue_ends_the_run_with_its_cause() -> None:
    queue = queue_of()
    queue.broken = True
    with pytest.raises(UnreachableError, match="redis does not answer"):
        await RolloutWorker(FakeEngine(), "w0").run(queue)


async def test_a_load_waits_for_what_is_in_flight() -> None:
    engine = FakeEngine(steps=5, max_num_seqs=8)
    queue = queue_of(*(prompt(i) for i in range(10)))
    worker = RolloutWorker(engine, "w0")
    running = asyncio.create_task(worker.run(queue))
    while engine.running == 0:
        await asyncio.sleep(0)
    attestation = await asyncio.wait_for(worker.load_weights(*manifest(1)), 10.0)
    assert not attestation.mismatches
    await asyncio.wait_for(queue.empty.wait(), 10.0)
    worker.stop()
    await running
    spans = [
        [span.version for s in r.samples for span in s.policy_versions]
        for r in queue.rollouts.values()
    ]
    assert all(len(set(versions)) == 1 for versions in spans)
    assert {versions[0] for versions in spans} == {0, 1}
    assert engine.loads == [1]


def digests(rollouts: list[Rollout]) -> dict[int, set[str]]:
    """By version, those that the samples name."""
    spans = [span for r in rollouts for s in r.samples for span in s.policy_versions]
    return {
        v: {s.weights_sha256 for s in spans if s.version == v} for v in {s.version for s in spans}
    }


async def test_a_rollout_names_the_weights_that_were_attested() -> None:
    engine = FakeEngine()
    worker = RolloutWorker(engine, "w0")
    # The folder that an engine starts on is nobody's version.
    assert digests(await worker.generate([prompt(0)])) == {0: {""}}
    first = weights_sha256(manifest(1)[0])
    assert (await worker.load_weights(*manifest(1))).weights_sha256 == first
    queue = queue_of(prompt(1), prompt(2))
    await drained(worker, queue)
    assert digests(list(queue.rollouts.values())) == {1: {first}}
    # What failed its canary is not attested; the engine goes on with what it held.
    engine.bad_loads = 1
    assert (await worker.load_weights(*manifest(2))).weights_sha256 == ""
    assert digests(await worker.generate([prompt(3)])) == {1: {first}}
    # The same number with other weights has another digest.
    other = {"w": np.full(2, 9.0, np.float32)}
    described = build_manifest("run", 1, 0, other, {"w": "float32"}, Canary())
    await worker.load_prepared(lambda: (described, other))
    assert digests(await worker.generate([prompt(4)])) == {1: {weights_sha256(described)}}
    assert weights_sha256(described) != first


async def test_an_idle_worker_loads_at_once_and_from_a_thread() -> None:
    engine, queue = FakeEngine(), queue_of()
    worker = RolloutWorker(engine, "w0")
    running = asyncio.create_task(worker.run(queue))
    await asyncio.wait_for(worker.load_prepared(lambda: manifest(4)), 10.0)
    assert worker.version == 4
    worker.stop()
    await asyncio.wait_for(running, 10.0)


async def test_a_held_worker_takes_nothing_before_sound_weights() -> None:
    engine, queue = FakeEngine(bad_loads=1), queue_of(prompt(0))
    worker = RolloutWorker(engine, "w0")
    worker.hold()
    running = asyncio.create_task(worker.run(queue))
    await rounds(100)
    assert (await worker.load_weights(*manifest(3))).mismatches
    await rounds(100)
    assert not engine.admitted
    assert not (await worker.load_weights(*manifest(3))).mismatches
    await asyncio.wait_for(queue.empty.wait(), 10.0)
    worker.stop()
    await asyncio.wait_for(running, 10.0)
    (rollout,) = queue.rollouts.values()
    assert {span.version for s in rollout.samples for span in s.policy_versions} == {3}


@dataclass
class QuietQueue(MemoryQueue):
    """Holds whoever takes until prompts are let in."""

    asked: asyncio.Event = field(default_factory=asyncio.Event)
    let_in: asyncio.Event = field(default_factory=asyncio.Event)

    async def take(
        self, stream: Literal["prompts"], consumer: str, count: int, block_s: float
    ) -> list[Item]:
        self.asked.set()
        await self.let_in.wait()
        return await super().take(stream, consumer, count, block_s)


@pytest.mark.parametrize("bad_loads", [0, 1])
async def test_weights_do_not_wait_for_a_queue_that_is_empty(bad_loads: int) -> None:
    engine = FakeEngine(bad_loads=bad_loads)
    queue = QuietQueue([Item(prompt(0).SerializeToString())])
    worker = RolloutWorker(engine, "w0")
    running = asyncio.create_task(worker.run(queue))
    await queue.asked.wait()
    attestation = await asyncio.wait_for(worker.load_weights(*manifest(2)), 10.0)
    assert len(attestation.mismatches) == bad_loads
    queue.let_in.set()
    if bad_loads:  # the prompt is taken, and waits for sound weights
        await rounds(100)
        assert not queue.waiting
        assert not engine.admitted
        await worker.load_weights(*manifest(2))
    await asyncio.wait_for(queue.empty.wait(), 10.0)
    worker.stop()
    await asyncio.wait_for(running, 10.0)
    (rollout,) = queue.rollouts.values()
    assert {span.version for s in rollout.samples for span in s.policy_versions} == {2}


async def test_generate_keeps_the_order_and_is_deterministic() -> None:
    prompts = [prompt(i, n=1 + i % 5) for i in range(30)]
    small = await RolloutWorker(FakeEngine(max_num_seqs=6), "w0").generate(prompts)
    large = await RolloutWorker(FakeEngine(max_num_seqs=64), "w0").generate(prompts)
    assert [r.prompt.id for r in small] == [p.id for p in prompts]
    assert [len(r.samples) for r in small] == [p.sampling.n for p in prompts]
    assert small == large
    texts = {sample.text for rollout in small for sample in rollout.samples}
    assert "one two three" in texts
    assert len(texts) > 2


async def test_generate_refuses_a_prompt_and_leaves_nothing_running() -> None:
    engine = FakeEngine()
    worker = RolloutWorker(engine, "w0")
    with pytest.raises(DataError, match="do not fit 256"):
        await worker.generate([prompt(0), prompt(1, tokens=300)])
    assert engine.running == 0
    assert len(await worker.generate([prompt(2)])) == 1


async def test_generate_beside_a_running_loop() -> None:
    engine = FakeEngine(steps=3, max_num_seqs=8)
    queue = queue_of(*(prompt(i) for i in range(12)))
    worker = RolloutWorker(engine, "w0")
    running = asyncio.create_task(worker.run(queue))
    await asyncio.sleep(0)
    direct = await asyncio.wait_for(worker.generate([prompt(100), prompt(101)]), 10.0)
    assert [r.prompt.index for r in direct] == [100, 101]
    await asyncio.wait_for(queue.empty.wait(), 10.0)
    worker.stop()
    await running
    assert len(queue.rollouts) == 12
