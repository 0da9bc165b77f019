"""A few pairs of every episode to look at: the first ones in canonical order."""

from heapq import nsmallest

from pairloop.data.v1.pair_pb2 import PreferencePair
from pairloop.data.v1.rollout_pb2 import FINISH_REASON_LENGTH, Sample
from services.data.messages import plain_messages
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


def about(sample: Sample) -> str:
    """ "12 tokens", and "cut" when it was not ended by the policy."""
    cut = ", cut" if sample.finish_reason == FINISH_REASON_LENGTH else ""
    return f"{len(sample.token_ids)} tokens{cut}"


def _example(stage: str, pair: PreferencePair) -> PairExample:
    chosen, rejected = pair.chosen_score, pair.rejected_score
    messages, source = pair.prompt.messages, pair.provenance
    first, last = source.min_policy_version, source.max_policy_version
    return PairExample(
        stage=stage,
        episode=pair.prompt.episode,
        id=pair.id,
        prompt=messages[-1].content if messages else pair.prompt.text,
        messages=plain_messages(pair.prompt),
        chosen=pair.chosen.text,
        rejected=pair.rejected.text,
        chosen_about=about(pair.chosen),
        rejected_about=about(pair.rejected),
        versions=str(first) if first == last else f"{first} to {last}",
        chosen_score=chosen.total,
        rejected_score=rejected.total,
        parts={name: (chosen.parts[name], rejected.parts[name]) for name in sorted(chosen.parts)},
        metadata=dict(pair.prompt.metadata),
    )
