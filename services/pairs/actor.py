"""A pairing worker as a Ray actor."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import ray

from services.errors import StateError
from services.pairs.settings import PairSettings
from services.pairs.worker import PairWorker, Queues
from services.ray_errors import answered
from services.reward.scorer import Scorer
from services.telemetry.record.sink import Reporter
from services.telemetry.tracing.spans import Spans, process_spans


class Closable(Protocol):
    """What holds connections."""

    async def close(self) -> None:
        """Let them go."""


class OpenQueues(Queues, Closable, Protocol):
    """Queues of a run, connected."""


class OpenScorer(Scorer, Closable, Protocol):
    """A reward, connected."""


Connect = Callable[[], Awaitable[OpenQueues]]
"""Opens the queues inside the actor; picklable: partial(RunQueues.open, url, run, settings)."""
MakeScorer = Callable[[], OpenScorer]
"""Opens the reward inside the actor; picklable: partial(GrpcScorer, address, settings, mark)."""


class PairActor:
    """Connects a PairWorker to the queues, the reward service and the event sink."""

    def __init__(self) -> None:
        self._worker: PairWorker | None = None
        self._open: list[Closable] = []
        self._at_work = asyncio.Lock()
        self._spans: Spans | None = None

    async def start(
        self,
        connect: Connect,
        make_scorer: MakeScorer,
        settings: PairSettings,
        *,
        consumer: str,
        stage: str,
        sink: Any,
    ) -> None:
        """Connect. Raises UnreachableError when Redis does not answer."""
        queues, scorer = await connect(), make_scorer()
        self._open = [scorer, queues]
        self._spans = process_spans(consumer)
        self._worker = PairWorker(
            queues,
            scorer,
            Reporter(sink),
            settings,
            consumer=consumer,
            stage=stage,
            spans=self._spans,
        )

    async def run(self) -> None:
        """Pair until `drain`, or for ever; raises what ended the work. Disconnected then."""
        worker = self._started()
        async with self._at_work:
            try:
                await worker.run()
            finally:
                for each in self._open:
                    await each.close()
                if self._spans is not None:
                    await asyncio.to_thread(self._spans.flush)

    async def drain(self) -> dict[int, dict[str, float]]:
        """Finish what is in flight, take nothing more; the `stats` of every episode then."""
        worker = self._started()
        worker.stop()
        async with self._at_work:
            return {episode: worker.stats(episode) for episode in worker.episodes()}

    async def ping(self) -> None:
        """Answers while the process lives and works."""

    async def stats(self, episode: int) -> dict[str, float]:
        """As PairWorker.stats; several workers' ones go together by `stats.merge`."""
        return self._started().stats(episode)

    def _started(self) -> PairWorker:
        if self._worker is None:
            raise StateError("the pairing actor was not started: call start first")
        return self._worker


class PairHandle:
    """A pairing actor as the orchestrator sees it: named, typed, one-line errors."""

    def __init__(self, name: str, actor: Any) -> None:
        self.name = name
        self.actor = actor

    async def start(
        self,
        connect: Connect,
        make_scorer: MakeScorer,
        settings: PairSettings,
        *,
        stage: str,
        consumer: str,
        sink: Any,
    ) -> None:
        """As PairActor.start."""
        await answered(
            self.actor.start.remote(
                connect,
                make_scorer,
                settings,
                consumer=consumer,
                stage=stage,
                sink=sink,
            ),
            self.name,
        )

    async def run(self) -> None:
        """As PairActor.run."""
        await answered(self.actor.run.remote(), self.name)

    async def ping(self) -> None:
        """As PairActor.ping."""
        await answered(self.actor.ping.remote(), self.name)

    async def stats(self, episode: int) -> dict[str, float]:
        """As PairActor.stats."""
        counted: dict[str, float] = await answered(self.actor.stats.remote(episode), self.name)
        return counted

    async def drain(self) -> dict[int, dict[str, float]]:
        """As PairActor.drain."""
        counted: dict[int, dict[str, float]] = await answered(self.actor.drain.remote(), self.name)
        return counted

    def kill(self) -> None:
        """End the process now; what it holds goes to another worker."""
        ray.kill(self.actor)


def start_pairing(name: str) -> PairHandle:
    """A worker, not yet connected."""
    kind = ray.remote(num_cpus=0, max_concurrency=16)(PairActor)
    return PairHandle(name, kind.remote())
