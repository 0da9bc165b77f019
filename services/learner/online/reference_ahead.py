"""Reference log-probabilities of an episode, computed while its pairs still arrive."""

import time
from collections.abc import Callable, Sequence

from pairloop.data.v1.pair_pb2 import PreferencePair
from services.learner.model.frozen import FrozenPolicy
from services.learner.model.reference import AnswerLogprobs, pair_logprobs
from services.learner.train.distributed import Worker
from services.learner.train.encoding import EncodedPair, sampled_pairs

_LOOK_EVERY_S = 0.25


class ReferenceAhead:
    """This worker's share of the pairs, by prompt; each pair in a pass of its own.

    So what is found for a pair does not depend on when it came or on what came with it, and a
    restart finds the same to the bit.
    """

    def __init__(self, reference: FrozenPolicy, max_length: int, worker: Worker) -> None:
        self._reference, self._max_length, self._worker = reference, max_length, worker
        self._known: dict[str, AnswerLogprobs] = {}
        self._waiting: list[EncodedPair] = []
        self._looked = 0.0

    def step(self, arrived: Callable[[], Sequence[PreferencePair]]) -> bool:
        """One more pair of those that have arrived; False when there was none to compute."""
        if not self._waiting and time.monotonic() - self._looked >= _LOOK_EVERY_S:
            self._looked = time.monotonic()
            self._waiting = self._unknown(arrived())
        if not self._waiting:
            return False
        pair = self._waiting.pop()
        self._known[pair.id] = pair_logprobs(self._reference, pair)
        return True

    def finish(self, kept: Sequence[PreferencePair]) -> dict[str, AnswerLogprobs]:
        """Of this worker's share of an episode's pairs; the reference's weights are let go."""
        for pair in self._unknown(kept):
            self._known[pair.id] = pair_logprobs(self._reference, pair)
        self._reference.release()
        found, self._known, self._waiting = self._known, {}, []
        mine = {pair.id for pair in kept}
        return {id: logprobs for id, logprobs in found.items() if id in mine}

    def _unknown(self, kept: Sequence[PreferencePair]) -> list[EncodedPair]:
        mine = [
            pair for pair in kept if pair.prompt.index % self._worker.world == self._worker.rank
        ]
        pairs, _ = sampled_pairs(mine, self._max_length)
        return [pair for pair in pairs if pair.id not in self._known]
