"""Adam's two moments of a parameter, as they are kept between steps: float32, or one byte each.

A step works on slices of a flat parameter, so what is float32 for its time is one slice.
"""

from typing import Literal, Protocol

import torch
from torch import Tensor

from services.learner.optim.eight_bit import BLOCK, EightBit
from services.learner.settings import AdamSettings

State = dict[str, Tensor]


class Moments(Protocol):
    """The moments of one flat parameter, slice by slice; `state` is the parameter's own."""

    def new_state(self, parameter: Tensor) -> State:
        """Both moments, zero."""
        ...

    def advance(
        self, state: State, piece: slice, grad: Tensor, count: int, lr: float, rounding: int
    ) -> Tensor:
        """Take a gradient in; returns Adam's step -lr * m_hat / (sqrt(v_hat) + eps), float32.

        `grad` is float32 of the slice's length, `count` the number of the step, from 1;
        `rounding` seeds what rounds by chance. The step is only good until the next call.
        """
        ...

    def step(self, state: State, piece: slice, count: int, lr: float) -> Tensor:
        """Adam's step once more, from the moments as they are kept; good until the next call."""
        ...


def moments_of(kind: Literal["float32", "int8"], rule: AdamSettings) -> Moments:
    """The way to keep them that the settings name."""
    return EightBitMoments(rule) if kind == "int8" else Float32Moments(rule)


class _Buffers:
    """Float32 work space by name and device, as long as the longest slice so far.

    New memory for each slice would cost more, in page faults, than the arithmetic on it.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[str, torch.device], Tensor] = {}

    def __call__(self, name: str, count: int, device: torch.device) -> Tensor:
        held = self._held.get((name, device))
        if held is None or held.numel() < count:
            held = self._held[name, device] = torch.empty(count, device=device)
        return held[:count]


class Float32Moments:
    """As torch's AdamW keeps them: "exp_avg" and "exp_avg_sq", 8 bytes a parameter."""

    def __init__(self, rule: AdamSettings) -> None:
        self._rule, self._buffer = rule, _Buffers()

    def new_state(self, parameter: Tensor) -> State:
        """As `Moments.new_state`."""
        return {
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }

    def advance(
        self, state: State, piece: slice, grad: Tensor, count: int, lr: float, rounding: int
    ) -> Tensor:
        """As `Moments.advance`."""
        mean, square = self._slices(state, piece)
        step = self._buffer("step", grad.numel(), grad.device).zero_()
        fused_adam(step, grad, mean, square, self._rule, count, lr)
        return step

    def step(self, state: State, piece: slice, count: int, lr: float) -> Tensor:
        """As `Moments.step`."""
        mean, square = self._slices(state, piece)
        out = self._buffer("step", mean.numel(), mean.device)
        return adam_step(mean, square, self._rule, count, lr, out)

    def _slices(self, state: State, piece: slice) -> tuple[Tensor, Tensor]:
        return state["exp_avg"].view(-1)[piece], state["exp_avg_sq"].view(-1)[piece]


class EightBitMoments:
    """One byte for each moment and a float32 scale for each block of 256: 2.03 bytes a parameter.

    The codes are in eight_bit.py. A slice must start at a multiple of the block.
    """

    def __init__(self, rule: AdamSettings) -> None:
        self._rule, self._buffer, self._code = rule, _Buffers(), EightBit()

    def new_state(self, parameter: Tensor) -> State:
        """As `Moments.new_state`."""
        blocks = -(-parameter.numel() // BLOCK)
        scale = torch.zeros(blocks, dtype=torch.float32, device=parameter.device)
        return {
            "exp_avg": torch.zeros_like(parameter, dtype=torch.int8),
            "exp_avg_scale": scale,
            "exp_avg_sq": torch.zeros_like(parameter, dtype=torch.uint8),
            "exp_avg_sq_scale": scale.clone(),
        }

    def advance(
        self, state: State, piece: slice, grad: Tensor, count: int, lr: float, rounding: int
    ) -> Tensor:
        """As `Moments.advance`; the step is that of the moments before they are rounded."""
        mean, square = self._decoded(state, piece)
        step = self._buffer("step", grad.numel(), grad.device).zero_()
        fused_adam(step, grad, mean, square, self._rule, count, lr)
        blocks = _blocks(piece)
        self._code.encode_signed(
            mean,
            state["exp_avg"].view(-1)[piece],
            state["exp_avg_scale"][blocks],
            piece.start,
            rounding,
        )
        self._code.encode_square(
            square,
            state["exp_avg_sq"].view(-1)[piece],
            state["exp_avg_sq_scale"][blocks],
            piece.start,
            rounding,
        )
        return step

    def step(self, state: State, piece: slice, count: int, lr: float) -> Tensor:
        """As `Moments.step`."""
        mean, square = self._decoded(state, piece)
        out = self._buffer("step", mean.numel(), mean.device)
        return adam_step(mean, square, self._rule, count, lr, out)

    def _decoded(self, state: State, piece: slice) -> tuple[Tensor, Tensor]:
        blocks = _blocks(piece)
        means, squares = state["exp_avg"].view(-1)[piece], state["exp_avg_sq"].view(-1)[piece]
        return (
            self._code.decode_signed(means, state["exp_avg_scale"][blocks]),
            self._code.decode_square(squares, state["exp_avg_sq_scale"][blocks]),
        )


def fused_adam(
    step: Tensor,
    grad: Tensor,
    mean: Tensor,
    square: Tensor,
    rule: AdamSettings,
    count: int,
    lr: float,
) -> None:
    """Both moments in place and Adam's step added to `step`, in one pass over memory."""
    torch._fused_adamw_(
        [step],
        [grad],
        [mean],
        [square],
        [],
        [torch.tensor(float(count), device=step.device)],
        lr=lr,
        beta1=rule.beta1,
        beta2=rule.beta2,
        weight_decay=0.0,
        eps=rule.eps,
        amsgrad=False,
        maximize=False,
    )


def adam_step(
    mean: Tensor, square: Tensor, rule: AdamSettings, count: int, lr: float, out: Tensor
) -> Tensor:
    """-lr * m_hat / (sqrt(v_hat) + eps), into `out`."""
    torch.sqrt(square, out=out)
    out.div_((1.0 - rule.beta2**count) ** 0.5).add_(rule.eps)
    torch.div(mean, out, out=out)
    return out.mul_(-lr / (1.0 - rule.beta1**count))


def _blocks(piece: slice) -> slice:
    return slice(piece.start // BLOCK, -(-piece.stop // BLOCK))
