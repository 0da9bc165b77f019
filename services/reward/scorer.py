"""The boundary between pairing and whatever scores."""

from collections.abc import Sequence
from typing import Protocol

from pairloop.data.v1.pair_pb2 import Score
from pairloop.data.v1.rollout_pb2 import Prompt, Sample


class Scorer(Protocol):
    """Scores the samples of one group."""

    async def score(self, prompt: Prompt, samples: Sequence[Sample]) -> list[Score]:
        """One score a sample, in order. Raises UnreachableError past its deadline and retries."""

    async def describe(self) -> str:
        """What scores: goes into every pair's provenance."""
