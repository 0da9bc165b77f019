"""Which values a random F_R keeps: a pure function of a counter, the same on every machine.

A flat tensor is cut into blocks of fixed length, and each block draws the gaps between the values
it keeps. So the work is that of the values kept, and any part of a tensor, on any worker, on a
CPU or a GPU, finds the same ones.
"""

import math
from enum import IntEnum

import torch
from torch import Tensor

BLOCK = 1 << 16
"""Values of a flat tensor that draw together; part of what the masks are a function of."""
_MASK64 = (1 << 64) - 1
_UNIT = 2.0**-24


class Draw(IntEnum):
    """What a step draws for one parameter: each is a stream of its own."""

    STEP = 0
    TAU = 1
    ROUNDING = 2


def mask_seed(seed: int, *counters: int) -> int:
    """64 bits from a seed and counters, e.g. parameter, step and what is drawn (splitmix64).

    It depends on nothing else, so replicas agree and a restart draws the same.
    """
    mixed = seed & _MASK64
    for counter in counters:
        mixed = (mixed + 0x9E3779B97F4A7C15 * (counter + 1)) & _MASK64
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK64
        mixed ^= mixed >> 31
    return mixed


def kept_positions(
    key: int, start: int, stop: int, reserve: float, device: torch.device | str = "cpu"
) -> Tensor | None:
    """Positions in [start, stop) that are kept with probability `reserve`, counted from start.

    int64, ascending, [about (stop - start) * reserve]; None when all are (reserve 1). `key` is
    `mask_seed` of the whole tensor's draw.
    """
    if reserve >= 1.0:
        return None
    first, last = start // BLOCK, -(-stop // BLOCK)
    # A short tensor needs the start of its only block.
    length = min(BLOCK, stop - first * BLOCK)
    gaps = _gaps(key, first, last, length, reserve, device)
    places = gaps.cumsum_(1)
    shift = torch.arange(first, last, dtype=torch.float64, device=device).mul_(BLOCK)
    places.add_(shift.sub_(start + 1)[:, None])
    # Ascending within a row, so what lies inside of block and range is one stretch of it.
    bounds = torch.stack(
        (
            torch.searchsorted(places, shift.add(1).clamp_(min=0)[:, None])[:, 0],
            torch.searchsorted(places, shift.add(BLOCK + 1).clamp_(max=stop - start)[:, None])[
                :, 0
            ],
        )
    ).tolist()
    rows = [row[low:high] for row, low, high in zip(places, *bounds, strict=True)]
    return torch.cat(rows).long()


def _gaps(
    key: int, first: int, last: int, length: int, reserve: float, device: torch.device | str
) -> Tensor:
    """Distances from one kept value to the next, geometric, float64 [blocks, enough of them].

    In float64 no rounding of a logarithm decides where a value falls, so machines agree. Enough:
    eight standard deviations above the number that fills the first `length` values of a block.
    """
    spread = math.sqrt(length * reserve * (1.0 - reserve))
    count = min(length, math.ceil(length * reserve + 8.0 * spread) + 8)
    keys = torch.tensor(
        [_two_int32(mask_seed(key, block)) for block in range(first, last)],
        dtype=torch.int32,
        device=device,
    )
    # A hash of the place in the block: murmur3's finalizer, with the block's key put in twice.
    bits = torch.arange(count, dtype=torch.int32, device=device) * -1640531535
    bits = bits ^ keys[:, :1]
    bits ^= bits >> 16
    bits *= -2048144789
    bits ^= keys[:, 1:]
    bits ^= bits >> 13
    bits *= -1028477387
    bits >>= 8
    bits &= 0xFFFFFF
    uniform = bits.double().mul_(-_UNIT)
    return uniform.log1p_().mul_(1.0 / math.log1p(-reserve)).floor_().add_(1.0)


def _two_int32(bits: int) -> tuple[int, int]:
    low, high = bits & 0xFFFFFFFF, bits >> 32
    return low - ((low >> 31) << 32), high - ((high >> 31) << 32)
