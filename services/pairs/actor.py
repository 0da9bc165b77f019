"""A pairing worker as a Ray actor."""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import ray

from services.errors import StateError
from services.pairs.settings import PairSettings
from services.pairs.worker import PairWorker, Queues
from services.reward.scorer import Scorer
from services.telemetry.record.sink import Reporter


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

    async def start(
        self,
        connect: Connect,
        make_scorer: MakeScorer,
        settings: PairSettings,
        *,
        max_staleness: int,
        consumer: str,
        stage: str,
        sink: Any,
    ) -> None:
        """Connect. Raises UnreachableError when Redis does not answer."""
        queues, scorer = await connect(), make_scorer()
        self._open = [scorer, queues]
        self._worker = PairWorker(
            queues,
            scorer,
            Reporter(sink),
            settings,
            consumer=consumer,
            max_staleness=max_staleness,
            stage=stage,
        )

    async def run(self) -> None:
        """StageContext until `stop`, then disconnect; raises what ended the work."""
        worker = self._started()
        try:
            await worker.run()
        finally:
            for each in self._open:
                await each.close()

    async def stop(self) -> None:
        """Take nothing more; `run` returns when what is in flight is committed."""
        self._started().stop()

    async def ping(self) -> None:
        """Answers while the actor lives."""

    async def stats(self, episode: int) -> dict[str, float]:
        """As PairWorker.stats; several workers' ones go together by `stats.merge`."""
        return self._started().stats(episode)

    def _started(self) -> PairWorker:
        if self._worker is None:
            raise StateError("the pairing actor was not started: call start first")
        return self._worker


def start_pairing(count: int) -> list[Any]:
    """So many actors, not yet connected."""
    kind = ray.remote(num_cpus=0, max_concurrency=16)(PairActor)
    return [kind.remote() for _ in range(count)]
