"""Prefixes and what goes on from them, laid end to end in one row without padding.

A preference pair is a prompt with two suffixes, a document or a dialogue an empty prefix with one;
a group of samples is a prompt with as many suffixes as it has answers. Each prefix goes through the
model once, whatever it is followed by.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class PrefixGroup:
    """A prefix, maybe empty, and the suffixes that go on from it, each at least one token.

    `learnt` marks the tokens of each suffix whose log-probability counts; None: all of them. The
    first token of a suffix without a prefix has no log-probability and never counts.
    """

    prefix: Sequence[int]
    suffixes: Sequence[Sequence[int]]
    learnt: Sequence[Sequence[int]] | None = None

    @property
    def tokens(self) -> int:
        """Tokens through the model."""
        return len(self.prefix) + sum(len(suffix) for suffix in self.suffixes)


@dataclass(frozen=True)
class Padded:
    """Where the queries of one attention call are in the row, and the keys they may look at.

    `queries` int64 [sequences, longest]; `keys` int64 [sequences, longest key]; padding repeats
    place 0, and what it gives is thrown away. `bias` [sequences, 1, longest, longest key] is 0
    where a query sees a key, else -inf; None where each query sees the keys up to its own place
    (the keys are then the queries).
    """

    queries: Tensor
    keys: Tensor
    bias: Tensor | None


@dataclass(frozen=True, eq=False)
class Packing:
    """A row of groups: its tokens, what attends to what, and which predictions count."""

    ids: Tensor
    """int64 [tokens]."""
    positions: Tensor
    """int64 [tokens]: from 0 in a prefix; a suffix goes on from its prefix."""
    group: Tensor
    """int64 [tokens]: the group of each token."""
    branch: Tensor
    """int64 [tokens]: the suffix of each token, counted through all groups; -1 in a prefix."""
    calls: tuple[Padded, ...]
    """Prefixes among themselves, and suffixes over prefix and themselves; without prefixes the
    suffixes among themselves, those of similar length in one call."""
    restore: Tensor
    """int64 [tokens]: each token's place in the calls' results, flattened and laid end to end."""
    last: Tensor
    """int64 [suffixes]: the last token of each."""
    sources: Tensor
    """int64 [learnt]: where the prediction of each learnt token is made."""
    targets: Tensor
    """int64 [learnt]: the learnt tokens."""
    suffix: Tensor
    """int64 [learnt]: the suffix each belongs to."""
    suffixes: int
    longest: int
    """Tokens of the longest prefix with one suffix."""


def pack_groups(
    groups: Sequence[PrefixGroup], device: torch.device, dtype: torch.dtype = torch.float32
) -> Packing:
    """Lay groups end to end in the order given; `dtype` is that of the attention."""
    ids: list[int] = []
    positions: list[int] = []
    group_of: list[int] = []
    branch_of: list[int] = []
    prefixes: list[tuple[int, int]] = []
    suffixes: list[tuple[int, int, int, int]] = []
    sources: list[int] = []
    targets: list[int] = []
    owner: list[int] = []
    for at, group in enumerate(groups):
        start, size = len(ids), len(group.prefix)
        ids += group.prefix
        positions += range(size)
        if size:
            prefixes.append((start, size))
        branch_of += [-1] * size
        for number, suffix in enumerate(group.suffixes):
            begin = len(ids)
            for place in _learnt(group, number):
                if place or size:
                    sources.append(begin + place - 1 if place else start + size - 1)
                    targets.append(suffix[place])
                    owner.append(len(suffixes))
            branch_of += [len(suffixes)] * len(suffix)
            suffixes.append((start, size, begin, len(suffix)))
            ids += suffix
            positions += range(size, size + len(suffix))
        group_of += [at] * (len(ids) - start)
    calls, restore = _calls(prefixes, suffixes, len(ids))

    def tensor(values: Sequence[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=device)

    return Packing(
        ids=tensor(ids),
        positions=tensor(positions),
        group=tensor(group_of),
        branch=tensor(branch_of),
        calls=tuple(
            Padded(
                call.queries.to(device),
                call.keys.to(device),
                None if call.bias is None else call.bias.to(device, dtype),
            )
            for call in calls
        ),
        restore=restore.to(device),
        last=tensor([begin + length - 1 for _, _, begin, length in suffixes]),
        sources=tensor(sources),
        targets=tensor(targets),
        suffix=tensor(owner),
        suffixes=len(suffixes),
        longest=max(size + length for _, size, _, length in suffixes),
    )


def _learnt(group: PrefixGroup, number: int) -> Sequence[int]:
    if group.learnt is None:
        return range(len(group.suffixes[number]))
    return [place for place, counts in enumerate(group.learnt[number]) if counts]


def _calls(
    prefixes: Sequence[tuple[int, int]], suffixes: Sequence[tuple[int, int, int, int]], tokens: int
) -> tuple[list[Padded], Tensor]:
    """The attention calls, and the way back from their padded results to the row."""
    calls: list[Padded] = []
    restore = torch.zeros(tokens, dtype=torch.int64)
    results = 0
    if prefixes:
        starts, sizes = torch.tensor(prefixes).unbind(1)
        places, real = _spans(starts, sizes)
        calls.append(Padded(places, places, None))
        restore[places[real]] = real.flatten().nonzero()[:, 0]
        results = real.numel()
    starts, sizes, begins, lengths = torch.tensor(suffixes).unbind(1)
    if not prefixes:
        for alike in _of_similar_length(lengths):
            own, real = _spans(begins[alike], lengths[alike])
            calls.append(Padded(own, own, None))
            restore[own[real]] = results + real.flatten().nonzero()[:, 0]
            results += real.numel()
        return calls, restore
    own, real = _spans(begins, lengths)
    restore[own[real]] = results + real.flatten().nonzero()[:, 0]
    before, seen = _spans(starts, sizes)
    longest = own.shape[1]
    causal = torch.ones(longest, longest, dtype=torch.bool).tril()
    visible = torch.cat(
        [seen[:, None].expand(-1, longest, -1), causal.expand(len(suffixes), -1, -1)], dim=2
    )
    # As numbers: the CPU's kernel takes twice as long where it must convert a bool mask itself.
    bias = torch.zeros(visible.shape).masked_fill_(~visible, float("-inf"))
    calls.append(Padded(own, torch.cat([before, own], dim=1), bias.unsqueeze(1)))
    return calls, restore


def _of_similar_length(lengths: Tensor) -> list[Tensor]:
    """Indices into `lengths` by powers of two, so that padding at most doubles a call's tokens.

    Documents of a row may be of 20 tokens and of 2,000. Up to 16 all are alike: a call has a cost.
    """
    classes = (lengths.clamp(min=16) - 1).log2().floor()
    return [(classes == each).nonzero()[:, 0] for each in classes.unique()]


def _spans(starts: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Places of spans [spans, longest], padded with 0, and which are real (bool)."""
    steps = torch.arange(int(sizes.max()))
    real = steps < sizes[:, None]
    return torch.where(real, starts[:, None] + steps, 0), real


def taken(rows: Tensor, places: Tensor) -> Tensor:
    """rows [tokens, ...] at `places` of any shape: [*places, ...].

    As an embedding: on a CPU the backward pass of indexing adds up float32 in the order in which
    threads come to it, another one each time, and that of `index_select` is several times slower.
    """
    return F.embedding(places, rows.flatten(1)).view(*places.shape, *rows.shape[1:])
