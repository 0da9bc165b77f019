"""Which examples go into which step, on which worker, in which order: pure functions of a seed."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

_CUT_COST_TOKENS = 256
"""Padded tokens that one more pass through the model costs about as much as."""


def permutation(count: int, *key: int) -> list[int]:
    """A shuffle of range(count) that depends on the key alone, e.g. (seed, episode, pass)."""
    return [int(at) for at in np.random.default_rng(key).permutation(count)]


def plan_batches(
    count: int,
    batch_size: int,
    *,
    epochs: float,
    key: tuple[int, ...],
    max_steps: int | None = None,
) -> list[list[int]]:
    """The example indices of every step.

    Passes over range(count), each shuffled by (*key, pass), are laid end to end and cut into
    steps of equal size up to one example, none above `batch_size`; so no step is left with a
    handful. With `max_steps` there are exactly so many, of `batch_size` each.
    """
    if count == 0:
        return []
    if max_steps is None:
        total = max(1, round(count * epochs))
        steps = -(-total // batch_size)
    else:
        steps, total = max_steps, max_steps * batch_size
    order: list[int] = []
    for number in range(-(-total // count)):
        order += permutation(count, *key, number)
    cuts = [round(at * total / steps) for at in range(steps + 1)]
    return [order[start:end] for start, end in pairwise(cuts)]


def shard(batch: Sequence[int], lengths: Sequence[int], rank: int, world: int) -> list[int]:
    """One worker's share of a batch: dealt out longest first, back and forth, so that tokens
    are even. `lengths[i]` is the length in tokens of example i."""
    by_length = sorted(batch, key=lambda at: (-lengths[at], at))
    there_and_back = 2 * world
    return [
        at for place, at in enumerate(by_length) if _dealt_to(place % there_and_back, world) == rank
    ]


def micro_batches(share: Sequence[int], lengths: Sequence[int], size: int) -> list[list[int]]:
    """A worker's share cut into parts that are padded to their own longest example.

    `size` > 0: parts of at most so many, of similar length. 0: the cuts that cost least, where
    a part costs its padded tokens and a fixed price for the pass.
    """
    ordered = sorted(share, key=lambda at: (-lengths[at], at))
    if size > 0:
        return [ordered[start : start + size] for start in range(0, len(ordered), size)]
    return [ordered[start:end] for start, end in _cheapest_cuts([lengths[at] for at in ordered])]


def pack(texts: Sequence[Sequence[int]], separator: int, row_length: int) -> list[list[int]]:
    """Token rows of exactly `row_length` from texts laid end to end, each ended by `separator`.

    The rest that fills no row is left out, unless it is all there is.
    """
    stream: list[int] = []
    for text in texts:
        stream.extend(text)
        stream.append(separator)
    rows = [
        stream[start : start + row_length]
        for start in range(0, len(stream) - row_length + 1, row_length)
    ]
    return rows or ([stream] if len(stream) > 1 else [])


def _dealt_to(place: int, world: int) -> int:
    return place if place < world else 2 * world - 1 - place


def _cheapest_cuts(lengths: Sequence[int]) -> list[tuple[int, int]]:
    """Ranges of a list sorted from long to short, by dynamic programming over their ends."""
    count = len(lengths)
    longest = np.asarray(lengths, dtype=np.float64)
    best = np.zeros(count + 1)
    start_of = [0] * (count + 1)
    for end in range(1, count + 1):
        costs = best[:end] + longest[:end] * (end - np.arange(end)) + _CUT_COST_TOKENS
        start_of[end] = int(np.argmin(costs))
        best[end] = costs[start_of[end]]
    cuts: list[tuple[int, int]] = []
    end = count
    while end:
        cuts.append((start_of[end], end))
        end = start_of[end]
    return cuts[::-1]
