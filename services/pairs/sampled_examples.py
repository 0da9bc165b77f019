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
        self._taken: dict[int, set[int]] = {}

    def add(self, pair: PreferencePair) -> None:
        """Offer a pair."""
        pairs = self._pairs.setdefault(pair.prompt.episode, {})
        pairs[pair.prompt.index] = pair
        self._pairs[pair.prompt.episode] = {i: pairs[i] for i in nsmallest(SHOWN, pairs)}
        for old in sorted(self._pairs)[:-EPISODES_KEPT]:
            del self._pairs[old]
            self._taken.pop(old, None)

    def take(self, episode: int) -> list[PairExample]:
        """The episode's examples that were not taken before."""
        taken = self._taken.setdefault(episode, set())
        new = [p for i, p in sorted(self._pairs.get(episode, {}).items()) if i not in taken]
        taken |= {pair.prompt.index for pair in new}
        return [_example(self._stage, pair) for pair in new]


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
