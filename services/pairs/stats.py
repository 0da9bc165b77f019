"""What an episode's groups looked like: means over groups and over pairs.

Rows are kept by prompt, so a group counts once however often it is delivered, and sums run in
prompt order, so the same episode gives the same figures whatever order its groups arrived in.
"""

from collections.abc import Mapping, Sequence
from math import fsum

from pairloop.data.v1.pair_pb2 import PreferencePair, Score
from pairloop.data.v1.rollout_pb2 import FINISH_REASON_LENGTH, Rollout

_PER_PAIR = ("margin", "length_gap")
_COUNTS = ("groups", "pairs")
EPISODES_KEPT = 8


def group_row(
    rollout: Rollout, scores: Sequence[Score], pair: PreferencePair | None
) -> dict[str, float]:
    """One group's figures; `margin` and `length_gap` are there when it gave a pair."""
    totals = [score.total for score in scores]
    tokens = [len(sample.token_ids) for sample in rollout.samples]
    cut = [sample.finish_reason == FINISH_REASON_LENGTH for sample in rollout.samples]
    row = {
        "reward_mean": _mean(totals),
        "reward_max": max(totals),
        "reward_min": min(totals),
        "unique_answers": float(len({sample.text for sample in rollout.samples})),
        "answer_tokens": _mean(tokens),
        "truncated": _mean(cut),
    }
    for part in scores[0].parts:
        row[f"reward_{part}"] = _mean([score.parts[part] for score in scores])
    if pair is not None:
        row["margin"] = pair.margin
        row["length_gap"] = float(pair.length_gap)
    return row


class EpisodeStats:
    """Rows of the latest episodes, by prompt index."""

    def __init__(self) -> None:
        self._rows: dict[int, dict[int, dict[str, float]]] = {}

    def add(self, episode: int, index: int, row: dict[str, float]) -> None:
        """Keep a prompt's row; a second one for the same prompt changes nothing."""
        self._rows.setdefault(episode, {}).setdefault(index, row)
        for old in sorted(self._rows)[:-EPISODES_KEPT]:
            del self._rows[old]

    def episodes(self) -> list[int]:
        """Those that there are rows of."""
        return sorted(self._rows)

    def summary(self, episode: int) -> dict[str, float]:
        """Means of every figure, and how many groups and pairs they are over."""
        rows = [row for _, row in sorted(self._rows.get(episode, {}).items())]
        pairs = sum("margin" in row for row in rows)
        names = sorted({name for row in rows for name in row})
        means = {name: _mean([row[name] for row in rows if name in row]) for name in names}
        return {"groups": float(len(rows)), "pairs": float(pairs)} | means


def merge(summaries: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """One summary of several workers' ones: each mean weighted by what it is over."""
    counts = {key: fsum(summary.get(key, 0.0) for summary in summaries) for key in _COUNTS}
    merged = dict(counts)
    for name in sorted({name for summary in summaries for name in summary} - set(_COUNTS)):
        count = "pairs" if name in _PER_PAIR else "groups"
        having = [summary for summary in summaries if name in summary]
        weight = fsum(summary[count] for summary in having)
        merged[name] = fsum(summary[name] * summary[count] for summary in having) / weight
    return merged


def _mean(values: Sequence[float]) -> float:
    return fsum(values) / len(values)
