"""A pairing worker as a Ray actor."""

from typing import Any

import ray

from services.errors import StateError
from services.pairs.settings import PairSettings
from services.pairs.worker import PairWorker
from services.queues.queues import RunQueues
from services.queues.settings import QueueSettings
from services.reward.client import GrpcScorer
from services.reward.settings import RewardSettings
from services.telemetry.sink import Reporter


class PairActor:
    """Connects a PairWorker to the queues, the reward service and the event sink."""

    def __init__(self) -> None:
        self._worker: PairWorker | None = None
        self._queues: RunQueues | None = None
        self._scorer: GrpcScorer | None = None

    async def start(
        self,
        url: str,
        run: str,
        *,
        queues: QueueSettings,
        pairs: PairSettings,
        reward: RewardSettings,
        reward_address: str,
        tokenizer_fingerprint: str,
        max_staleness: int,
        consumer: str,
        stage: str,
        sink: Any,
    ) -> None:
        """Connect. Raises UnreachableError when Redis does not answer."""
        self._queues = await RunQueues.open(url, run, queues)
        self._scorer = GrpcScorer(reward_address, reward, tokenizer_fingerprint)
        self._worker = PairWorker(
            self._queues,
            self._scorer,
            Reporter(sink),
            pairs,
            consumer=consumer,
            max_staleness=max_staleness,
            stage=stage,
        )

    async def run(self) -> None:
        """Work until `stop`, then disconnect; raises what ended the work."""
        worker = self._started()
        try:
            await worker.run()
        finally:
            await self._close()

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

    async def _close(self) -> None:
        if self._scorer is not None:
            await self._scorer.close()
        if self._queues is not None:
            await self._queues.close()


def start_pairing(count: int) -> list[Any]:
    """So many actors, not yet connected."""
    kind = ray.remote(num_cpus=0, max_concurrency=16)(PairActor)
    return [kind.remote() for _ in range(count)]
