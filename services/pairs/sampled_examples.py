"""A few pairs of every episode to look at: the first ones in canonical order."""

from heapq import nsmallest

from pairloop.data.v1.pair_pb2 import PreferencePair
from services.telemetry.record.events import PairExample

SHOWN = 6
EPISODES_KEPT = 8


class Examples:
    """Keeps the pairs with the lowest prompt indices, whatever order they arrive in."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._pairs: dict[int, dict[int, PreferencePair]] = {}

    def add(self, pair: PreferencePair) -> None:
        """Offer a pair."""
        pairs = self._pairs.setdefault(pair.prompt.episode, {})
        pairs[pair.prompt.index] = pair
        self._pairs[pair.prompt.episode] = {i: pairs[i] for i in nsmallest(SHOWN, pairs)}
        for old in sorted(self._pairs)[:-EPISODES_KEPT]:
            del self._pairs[old]

    def take(self, episode: int) -> list[PairExample]:
        """The episode's examples, once: a second call finds none."""
        return [_example(self._stage, pair) for pair in self._pairs.pop(episode, {}).values()]


def _example(stage: str, pair: PreferencePair) -> PairExample:
    chosen, rejected = pair.chosen_score, pair.rejected_score
    return PairExample(
        stage=stage,
        episode=pair.prompt.episode,
        prompt=pair.prompt.messages[-1].content if pair.prompt.messages else pair.prompt.text,
        chosen=pair.chosen.text,
        rejected=pair.rejected.text,
        chosen_score=chosen.total,
        rejected_score=rejected.total,
        parts={name: (chosen.parts[name], rejected.parts[name]) for name in sorted(chosen.parts)},
        metadata=dict(pair.prompt.metadata),
    )
