"""Which examples go into which step, on which worker, in which order: pure functions of a seed."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np


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


def shard(batch: Sequence[int], tokens: Sequence[int], rank: int, world: int) -> list[int]:
    """One worker's share of a batch: dealt out longest first, back and forth, so that tokens
    are even. `tokens[i]` are those of example i."""
    by_length = sorted(batch, key=lambda at: (-tokens[at], at))
    there_and_back = 2 * world
    return [
        at for place, at in enumerate(by_length) if _dealt_to(place % there_and_back, world) == rank
    ]


def micro_batches(share: Sequence[int], tokens: Sequence[int], budget: int) -> list[list[int]]:
    """A worker's share cut into passes of at most `budget` tokens, longest examples first.

    `tokens[i]` are those of example i; one above the budget goes alone. Neighbours are of like
    length, so that attention, which pads within a pass, pads little.
    """
    passes: list[list[int]] = []
    room = 0
    for at in sorted(share, key=lambda at: (-tokens[at], at)):
        if not passes or tokens[at] > room:
            passes.append([])
            room = budget
        passes[-1].append(at)
        room -= tokens[at]
    return passes


def _dealt_to(place: int, world: int) -> int:
    return place if place < world else 2 * world - 1 - place
