"""The whole online loop in seconds: real Redis, queues, states, pairing; fake engine and learner.

The learner is one that reads the kept pairs, commits them and publishes; the engine and the reward
are fakes behind their Protocols.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from orchestrator.episodes import EpisodeStore
from orchestrator.loop import run_episodes
from orchestrator.online.ports import LoopPorts, Weights
from orchestrator.online.supervision import supervise
from orchestrator.online.traced import traced
from pairloop.admin.v1.admin_pb2 import Change
from pairloop.data.v1.pair_pb2 import Score
from pairloop.data.v1.rollout_pb2 import Prompt, Sample, SamplingSettings
from pairloop.data.v1.weights_pb2 import Canary
from services.causes import causes
from services.errors import AttestationError
from services.pairs.settings import PairSettings
from services.pairs.worker import PairWorker
from services.queues.ledger import LedgerEvent, ledger_audit
from services.queues.queues import RunQueues
from services.queues.settings import EpisodeSettings, QueueSettings
from services.reward.rules import checker
from services.rollout.worker import RolloutWorker
from services.telemetry.record.events import EpisodeFinished, Event, WeightsPublished
from services.telemetry.tracing.ids import STEPS, Step
from services.telemetry.tracing.spans import Spans, now
from services.weights.broadcaster import broadcast
from services.weights.manifest import build_manifest
from tests.fake_engine import FakeEngine

SETTINGS = QueueSettings(credits=32, max_failures=3, reclaim_idle_s=300.0)
EPISODES = EpisodeSettings(count=3, prompts=24, in_flight=8, timeout_s=20.0)
WORDS = ("sun", "tree", "fish", "moon", "river")


class Checker:
    async def score(self, prompt: Prompt, samples: Sequence[Sample]) -> list[Score]:
        await asyncio.sleep(0)
        totals = [checker(prompt.id, prompt.metadata, sample.text) for sample in samples]
        return [Score(total=total, parts={"checker": total}) for total in totals]

    async def describe(self) -> str:
        return "1.0*checker"


@dataclass
class Holder:
    """A rollout worker as the broadcaster sees it."""

    worker: RolloutWorker
    worker_id: str

    async def load_weights(self, manifest: bytes, weights: dict[str, np.ndarray]) -> bytes:
        from pairloop.data.v1.weights_pb2 import WeightManifest

        loaded = await self.worker.load_weights(WeightManifest.FromString(manifest), weights)
        return loaded.SerializeToString()


@dataclass
class World:
    """One run: its durable parts, and what it saw."""

    queues: RunQueues
    store: EpisodeStore
    run: str
    engines: list[FakeEngine]
    events: list[Event] = field(default_factory=list)
    learned: int = 0
    trained: dict[int, list[str]] = field(default_factory=dict)
    start_s: float = 0.0
    looks: int = 0
    look: asyncio.Condition = field(default_factory=asyncio.Condition)
    spans: Spans | None = None
    too_long: int = 0
    """Pairs of each episode that the learner leaves out."""

    async def prompts(self, episode: int) -> list[Prompt]:
        return [
            Prompt(
                id=f"{self.run}/e{episode:05d}/p{index:05d}",
                run=self.run,
                episode=episode,
                index=index,
                token_ids=[1, 2, 3],
                metadata={"answer": " ".join(WORDS[: 2 + index % 4])},
                sampling=SamplingSettings(n=6, max_tokens=16, seed=index + 1000 * episode),
            )
            for index in range(EPISODES.prompts)
        ]

    async def weights(self, version: int, timeout_s: float) -> Weights:
        """The learner's part of an episode."""
        await asyncio.sleep(self.start_s)
        for episode in range(self.learned + 1, version + 1):
            assert await self.queues.episode_state(episode) == "TRAINING"
            kept = [pair.id for pair in await self.queues.pairs(episode)]
            left_out = dict.fromkeys(kept[: self.too_long], "TOO_LONG")
            self.trained[episode] = kept[self.too_long :]
            if self.spans is not None:
                self.spans.record_all("train", self.trained[episode], now(), {"version": episode})
            await self.queues.commit_trained(episode, episode, self.trained[episode], left_out)
            self.learned = episode
        tensors = {"w": np.full(4, float(self.learned), dtype=np.float32)}
        manifest = build_manifest(
            self.run, self.learned, 0, tensors, {"w": "float32"}, Canary(), {"w": 4}
        )
        return Weights(self.learned, (manifest.SerializeToString(), tensors), {"loss": 0.6})

    def planned(self) -> dict[int, list[str]]:
        return {
            episode: [
                f"{self.run}/e{episode:05d}/p{index:05d}" for index in range(EPISODES.prompts)
            ]
            for episode in range(1, EPISODES.count + 1)
        }

    async def ledger(self) -> list[LedgerEvent]:
        numbers = range(EPISODES.count + 1)
        return [event for number in numbers for event in await self.queues.ledger(number)]

    async def archive(self, episode: int) -> bool:
        """What a finished episode left proves itself; it stays, for the tests to look at."""
        plan = {episode: self.planned()[episode]}
        assert ledger_audit(await self.queues.ledger(episode), plan) == []
        return True

    async def changed(self, seconds: float) -> None:
        """Between two looks of the loop at an episode."""
        await self.store.changed(seconds)
        self.looks += 1
        async with self.look:
            self.look.notify_all()

    async def cut_off_in(self, episode: int) -> None:
        """Play until prompts of this episode are in flight, and no further."""
        playing = asyncio.create_task(self.play())
        while not (await self.store.get(episode)).in_flight:
            await asyncio.sleep(0.005)
        playing.cancel()
        await asyncio.gather(playing, return_exceptions=True)
        assert (await self.store.get(episode)).in_flight

    async def looked(self, times: int) -> None:
        """The loop has looked so many times more, and acted on what it saw but for the last."""
        wanted = self.looks + times
        async with self.look:
            await self.look.wait_for(lambda: self.looks >= wanted)

    async def publish(self, weights: Weights) -> None:
        manifest, tensors = weights.payload
        self.events.append(await broadcast(self.holders, manifest, tensors, 5.0, stage="online"))
        await self.queues.published(weights.version, weights.version)

    async def play(
        self, settings: EpisodeSettings = EPISODES, scorer: Checker | None = None
    ) -> None:
        """The loop beside its workers, until it ends."""
        rollout = [RolloutWorker(each, each.worker_id, self.spans) for each in self.engines]
        for worker in rollout:
            worker.hold()
        self.holders = [
            Holder(worker, engine.worker_id)
            for worker, engine in zip(rollout, self.engines, strict=True)
        ]
        pairing = PairWorker(
            self.queues,
            scorer or Checker(),
            self.events.append,
            PairSettings(concurrency=4),
            consumer="pairs-0",
            stage="online_dpo",
            spans=self.spans,
        )
        workers = {
            e.worker_id: w.run(self.queues) for e, w in zip(self.engines, rollout, strict=True)
        }
        loop = run_episodes(self.ports(pairing), settings)
        await supervise(loop, {**workers, "pairs-0": pairing.run()})

    def ports(self, pairing: PairWorker) -> LoopPorts:
        """What the loop drives."""

        async def statistics(episode: int) -> dict[str, float]:
            return pairing.stats(episode)

        async def failures(episode: int) -> str:
            letters = await self.queues.dead_letters()
            return causes([(each.prompt_id, each.error) for each in letters])

        self.driven = LoopPorts(
            stage="online",
            episodes=self.store,
            prompts=self.prompts,
            dispatch=self.queues.dispatch,
            weights=self.weights,
            publish=self.publish,
            statistics=statistics,
            failures=failures,
            archive=self.archive,
            report=self.events.append,
            changed=self.changed,
        )
        return traced(self.driven, self.queues.dispatch, self.queues.ledger, self.spans)


@asynccontextmanager
async def world(url: str, run: str, *engines: FakeEngine) -> AsyncIterator[World]:
    queues = await RunQueues.open(url, run, SETTINGS)
    store = await EpisodeStore.open(url, run, 5.0)
    await store.create(EPISODES.count, EPISODES.prompts)
    try:
        yield World(queues, store, run, list(engines))
    finally:
        await queues.close()
        await store.close()


async def test_every_prompt_ends_once_and_every_version_is_attested(
    redis_url: str, run_name: str
) -> None:
    engines = [FakeEngine(worker_id=f"rollout-{n}", skill_per_version=0.25) for n in (0, 1)]
    async with world(redis_url, run_name, *engines) as here:
        await here.play()
        events = await here.ledger()
        counters = [await here.queues.counters(n) for n in (1, 2, 3)]
    assert ledger_audit(events, here.planned()) == []
    assert sum(event.kind == "dispatched" for event in events) == 3 * EPISODES.prompts
    assert [c["paired"] for c in counters] == [c["trained"] for c in counters]
    for episode, ids in here.trained.items():
        assert ids == sorted(ids)
        assert len(ids) == counters[episode - 1]["paired"] > 0
    versions = [e.version for e in here.events if isinstance(e, WeightsPublished)]
    assert versions == [0, 1, 2, 3]
    assert [engine.loads for engine in engines] == [[0, 1, 2, 3]] * 2
    finished = [e for e in here.events if isinstance(e, EpisodeFinished)]
    assert [e.number for e in finished] == [1, 2, 3]
    assert finished[-1].metrics["reward_mean"] > finished[0].metrics["reward_mean"]


async def test_pairs_come_from_the_version_before_them(redis_url: str, run_name: str) -> None:
    async with world(redis_url, run_name, FakeEngine()) as here:
        await here.play()
        paired = [event for event in await here.ledger() if event.kind == "paired"]
    assert {(event.episode, event.detail) for event in paired} == {
        (1, "0-0"),
        (2, "1-1"),
        (3, "2-2"),
    }


async def test_a_loop_that_is_cut_off_goes_on_without_losing_or_repeating(
    redis_url: str, run_name: str
) -> None:
    learned = 0
    for episode in (1, 2, 3):
        async with world(redis_url, run_name, FakeEngine(worker_id="rollout-0", steps=40)) as here:
            here.learned = learned
            await here.cut_off_in(episode)
            learned = here.learned
    async with world(redis_url, run_name, FakeEngine(worker_id="rollout-0")) as here:
        here.learned = learned
        await here.play()
        assert ledger_audit(await here.ledger(), here.planned()) == []
        assert [EPISODES.prompts] * 3 == [
            counters["trained"] + sum(n for k, n in counters.items() if k.startswith("dropped:"))
            for counters in [await here.queues.counters(n) for n in (1, 2, 3)]
        ]


async def test_what_a_cut_off_attempt_left_is_sampled_from_its_own_version(
    redis_url: str, run_name: str
) -> None:
    async with world(redis_url, run_name, FakeEngine(worker_id="rollout-0", steps=40)) as here:
        await here.cut_off_in(2)
        learned = here.learned
    # A new engine holds version 0 until the loop publishes.
    async with world(redis_url, run_name, FakeEngine(worker_id="rollout-0")) as here:
        here.learned = learned
        here.start_s = 0.5  # a real learner takes longer to come up than the workers
        await here.play()
        events = await here.ledger()
    assert {(e.episode, e.detail) for e in events if e.kind == "paired"} == {
        (1, "0-0"),
        (2, "1-1"),
        (3, "2-2"),
    }
    assert {e.detail for e in events if e.kind == "dropped"} <= {"TIE", "SINGLE_ANSWER", "MARGIN"}


async def test_a_pause_holds_the_run_and_a_resume_lets_it_finish(
    redis_url: str, run_name: str
) -> None:
    async with world(redis_url, run_name, FakeEngine(steps=6)) as here:
        playing = asyncio.create_task(here.play())
        while (await here.store.get(1)).dispatched == 0:
            await asyncio.sleep(0.01)
        await here.store.pause(1, Change(request_id="p", reason="a look", actor="me"))
        while (await here.store.get(1)).state != 4:
            await asyncio.sleep(0.01)
        held = await here.store.get(1)
        await here.looked(5)
        assert await here.store.get(1) == held
        assert (held.in_flight, held.last_change.reason) == (0, "a look")
        assert held.dispatched < EPISODES.prompts
        await here.store.resume(1, Change(request_id="r", reason="seen", actor="me"))
        await asyncio.wait_for(playing, 20)
        assert ledger_audit(await here.ledger(), here.planned()) == []


async def test_a_worker_that_loads_badly_twice_ends_the_run_by_name(
    redis_url: str, run_name: str
) -> None:
    sound, broken = FakeEngine(worker_id="rollout-0"), FakeEngine(worker_id="rollout-1")
    async with world(redis_url, run_name, sound, broken) as here:
        broken.bad_loads = 1
        await here.play(EPISODES.model_copy(update={"count": 1}))
        repaired = [e.repaired for e in here.events if isinstance(e, WeightsPublished)]
        assert repaired == [1, 0]
        broken.bad_loads = 2
        with pytest.raises(AttestationError, match=r"rollout-1 .* canary"):
            await here.play()


async def test_a_prompt_s_spans_lead_to_the_version_it_trained(
    redis_url: str, run_name: str
) -> None:
    exporter = InMemorySpanExporter()
    async with world(redis_url, run_name, FakeEngine(worker_id="rollout-0")) as here:
        here.spans = Spans(SimpleSpanProcessor(exporter), "run", 1.0, "test")
        here.too_long = 1
        await here.play()
        events = await here.ledger()
    traces: dict[str, list[ReadableSpan]] = {}
    for span in exporter.get_finished_spans():
        assert span.attributes is not None
        traces.setdefault(str(span.attributes["pairloop.prompt"]), []).append(span)
    ended = {e.id: e for e in events if e.kind in ("trained", "dropped")}
    assert traces.keys() == ended.keys()
    for prompt, spans in traces.items():
        chain = sorted(spans, key=lambda span: STEPS.index(cast(Step, span.name)))
        end = ended[prompt]
        steps = STEPS if end.kind == "trained" else STEPS[: STEPS.index("pair") + 1]
        assert [span.name for span in chain] == list(steps)
        assert len({span.context.trace_id for span in chain}) == 1
        parents = [span.parent.span_id if span.parent else None for span in chain]
        assert parents == [None, *(span.context.span_id for span in chain[:-1])]
        begun = [span.start_time or 0 for span in chain]
        over = [span.end_time or 0 for span in chain]
        assert all(a <= b for a, b in zip(begun, over, strict=True))
        assert over[1:] == sorted(
            over[1:]
        )  # the queues answer a dispatch after others have seen it
        found = [dict(span.attributes or {}) for span in chain]
        assert found[0]["pairloop.episode"] == end.episode
        assert found[1]["pairloop.version"] == end.episode - 1
        if end.kind == "trained":
            assert found[3]["pairloop.outcome"] == "paired"
            assert [each["pairloop.version"] for each in found[4:]] == [end.episode] * 2
            assert end.detail == str(end.episode)
        else:
            told = "paired" if end.detail == "TOO_LONG" else end.detail
            assert found[3]["pairloop.outcome"] == told
    assert {"TOO_LONG", "1", "2", "3"} <= {event.detail for event in ended.values()}
