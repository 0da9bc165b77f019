"""One byte for a moment, by blocks of 256 values with one float32 scale: the largest of them.

    first moment    int8    m = scale * sign(q) (q / 127)^2     1.6e4 from the largest to the least
    second moment   uint8   v = scale * (q / 255)^4             4.2e9, so 6.5e4 in sqrt(v)

The powers give small values of a block a finer grid, as the dynamic code of 8-bit Adam does (arXiv
2110.02861), without a table. Values are rounded up or down by chance, so that none is stuck: with
the nearest code, a moment whose step of decay is less than half a code's width would never decay.
"""

import torch
from torch import Tensor

from services.learner.optim.masks import mask_seed

BLOCK = 256
"""Values that share a scale; part of what is computed."""
_POOL = 1 << 18
_LEAST = 2e-29
"""Of a scale: 255^4 over it is still a float32. Its square root is far below any eps."""


class EightBit:
    """Both codes, with the work space for one slice at a time.

    A slice is [count] values that start at a multiple of BLOCK of their flat tensor, with
    [ceil(count / BLOCK)] scales; what decodes gives a buffer that is good until the next call.
    """

    def __init__(self) -> None:
        self._pool: dict[torch.device, Tensor] = {}
        self._buffers: dict[tuple[str, torch.device], Tensor] = {}

    def decode_signed(self, codes: Tensor, scales: Tensor) -> Tensor:
        """First moments, float32 [count]."""
        values = self._buffer("signed", codes).view(-1)
        values[: codes.numel()].copy_(codes)
        rows = values.view(-1, BLOCK)
        magnitude = torch.abs(rows, out=self._buffer("work", codes))
        rows.mul_(magnitude).mul_((scales / 127.0**2)[:, None])
        return values[: codes.numel()]

    def decode_square(self, codes: Tensor, scales: Tensor) -> Tensor:
        """Second moments, float32 [count]."""
        values = self._buffer("square", codes).view(-1)
        values[: codes.numel()].copy_(codes)
        rows = values.view(-1, BLOCK)
        rows.square_().square_().mul_((scales / 255.0**4)[:, None])
        return values[: codes.numel()]

    def encode_signed(
        self, values: Tensor, codes: Tensor, scales: Tensor, start: int, seed: int
    ) -> None:
        """The opposite of `decode_signed`, into `codes` and `scales`; `values` are its buffer.

        `start` is the slice's first value in its flat tensor: rounding depends on it and on
        `seed`, not on how the tensor is sliced.
        """
        rows = self._whole_blocks("signed", values)
        work = self._buffer("work", values)
        torch.amax(torch.abs(rows, out=work), 1, out=scales).clamp_(min=_LEAST)
        work.mul_((127.0**2 / scales)[:, None]).sqrt_()
        torch.copysign(work, rows, out=work)
        flat = work.view(-1)[: values.numel()]
        flat.add_(self._chance(values, start, mask_seed(seed, 0))).floor_().clamp_(-127.0, 127.0)
        codes.copy_(flat)

    def encode_square(
        self, values: Tensor, codes: Tensor, scales: Tensor, start: int, seed: int
    ) -> None:
        """The opposite of `decode_square`, as `encode_signed`.

        No code is 0: a second moment rounded to 0 would leave eps alone to divide by.
        """
        rows = self._whole_blocks("square", values)
        work = self._buffer("work", values)
        torch.amax(rows, 1, out=scales).clamp_(min=_LEAST)
        torch.mul(rows, (255.0**4 / scales)[:, None], out=work)
        work.sqrt_().sqrt_()
        # Rounding q by chance raises the mean of q^4 by q^2 on average over where it falls
        # between two codes: 1/(4q) less makes up for it.
        work.clamp_(min=0.5).addcdiv_(self._ones(values), work, value=-0.25)
        flat = work.view(-1)[: values.numel()]
        flat.add_(self._chance(values, start, mask_seed(seed, 1))).clamp_(1.0, 255.0)
        # By way of int16: float32 to uint8 alone takes a CPU five times as long as both.
        codes.copy_(flat.to(torch.int16))

    def _whole_blocks(self, name: str, values: Tensor) -> Tensor:
        """The decoding buffer that `values` is the start of, its last block filled up with 0."""
        rows = self._buffer(name, values)
        rows.view(-1)[values.numel() :].zero_()
        return rows

    def _buffer(self, name: str, like: Tensor) -> Tensor:
        blocks = -(-like.numel() // BLOCK)
        held = self._buffers.get((name, like.device))
        if held is None or len(held) < blocks:
            held = torch.empty(blocks, BLOCK, device=like.device)
            self._buffers[name, like.device] = held
        return held[:blocks]

    def _ones(self, like: Tensor) -> Tensor:
        return torch.ones((), device=like.device)

    def _chance(self, like: Tensor, start: int, seed: int) -> Tensor:
        """Values evenly spread in [0, 1), for the slice that starts at `start`.

        A window on a shuffled, evenly spaced pool that goes round: each value is as likely as any
        other, and the same whatever the slices are.
        """
        count = like.numel()
        pool = self._pool.get(like.device)
        if pool is None or len(pool) < _POOL + count:
            order = torch.randperm(_POOL, generator=torch.Generator().manual_seed(0))
            even = (order.float() + 0.5) / _POOL
            pool = even.repeat(2 + count // _POOL).to(like.device)
            self._pool[like.device] = pool
        first = (start + seed) % _POOL
        return pool[first : first + count]
