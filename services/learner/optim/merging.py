"""The merging rules of the Online Merging Optimizer, on flat float32 values.

Symbols of arXiv 2405.17931: dtheta ("step") is Adam's step, tau_r ("tau") is the reference
minus the base, p ("reserve") is how much of each is kept, a ("alpha") weighs tau. Every rule
returns what is added to the weights (Eq. 2) and works value by value, so a tensor may be merged
in parts. The "official" rules do what the authors' script does where it differs from the paper
(docs/algorithms.md).
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

Map = Callable[[Callable[[slice], Tensor], Sequence[slice]], Iterable[Tensor]]
"""The builtin `map` over a tensor's pieces."""
_LOW_BITS = 16
_NONE = torch.zeros(1 << _LOW_BITS, dtype=torch.int64)


def ondare(
    step: Tensor,
    tau: Tensor | None,
    *,
    kept_step: Tensor | None,
    kept_tau: Tensor | None,
    reserve: float,
    alpha: float,
    rescale: bool,
) -> Tensor:
    """(1-a) F_R(dtheta) + a F_R(tau_r) (Eq. 3 and 4).

    F_R keeps the values at the positions given (`masks.kept_positions`; None: all of them), and
    divides them by p when `rescale` is set. `tau` may be None when alpha is 0. The authors' script
    always rescales (inverted dropout), and its `kept_tau` is the same in every step.
    """
    scale = 1.0 / reserve if rescale else 1.0
    if kept_step is None:
        update = step * ((1.0 - alpha) * scale)
    else:
        kept = step.index_select(0, kept_step).mul_((1.0 - alpha) * scale)
        update = torch.zeros_like(step).scatter_(0, kept_step, kept)
    if tau is not None and kept_tau is None:
        update.add_(tau, alpha=alpha * scale)
    elif tau is not None and kept_tau is not None:
        update.index_add_(0, kept_tau, tau.index_select(0, kept_tau), alpha=alpha * scale)
    return update


def onties(
    kept_step: Tensor, kept_tau: Tensor | None, *, reserve: float, alpha: float, rescale: bool
) -> Tensor:
    """(1-a) F_T(dtheta) (+sign) a F_T(tau_r) (Eq. 5 to 7), of what F_T kept: see `top_threshold`.

    (+sign) adds the two weighted terms where their signs agree and takes the one of larger
    magnitude where they do not. `kept_tau` may be None when alpha is 0.
    """
    scale = 1.0 / reserve if rescale else 1.0
    first = kept_step * ((1.0 - alpha) * scale)
    if kept_tau is None:
        return first
    second = kept_tau * (alpha * scale)
    larger = torch.where(first.abs() >= second.abs(), first, second)
    return torch.where(first * second < 0, larger, first + second)


def onties_official(
    kept_step: Tensor, kept_tau: Tensor | None, *, reserve: float, alpha: float, rescale: bool
) -> Tensor:
    """OnTIES as the authors' script does it: the sign is elected by the *unweighted* sum.

    tau_r is far larger than a step, so where they oppose each other the step is dropped.
    """
    scale = 1.0 / reserve if rescale else 1.0
    kept_step = kept_step * scale
    if kept_tau is None:
        return kept_step * (1.0 - alpha)
    kept_tau = kept_tau * scale
    positive = kept_step + kept_tau >= 0
    agreeing_step = torch.where((kept_step > 0) == positive, kept_step, 0.0)
    agreeing_tau = torch.where((kept_tau > 0) == positive, kept_tau, 0.0)
    return agreeing_step * (1.0 - alpha) + agreeing_tau * alpha


def above(values: Tensor, threshold: float) -> Tensor:
    """F_T (Eq. 5): the values of at least this magnitude, else 0."""
    return values.masked_fill(values.abs() < threshold, 0.0)


def top_threshold(
    values: Callable[[slice], Tensor],
    pieces: Sequence[slice],
    reserve: float,
    each: Map = map,
) -> float:
    """The least magnitude among the largest `reserve` of float32 values, at least one of them.

    `values` gives those of a piece, and is asked twice: the bits of a magnitude order as it does,
    so the upper ones are counted first and then the lower ones of the bin sought. `each` is `map`,
    or one that does several pieces at once. Values that tie with the smallest kept one are kept
    as well.
    """
    count = pieces[-1].stop
    kept = max(1, round(reserve * count))
    if kept >= count:
        return 0.0
    upper = sum(each(lambda piece: _histogram(_bits(values(piece)) >> _LOW_BITS), pieces), _NONE)
    bin_, within = _bin_of(upper, kept)

    def lower_bits(piece: slice) -> Tensor:
        bits = _bits(values(piece))
        return _histogram(bits[bits >> _LOW_BITS == bin_] & (1 << _LOW_BITS) - 1)

    low, _ = _bin_of(sum(each(lower_bits, pieces), _NONE), within)
    return float(torch.tensor(bin_ << _LOW_BITS | low, dtype=torch.int32).view(torch.float32))


def _bits(values: Tensor) -> Tensor:
    return values.abs().view(torch.int32)


def _histogram(keys: Tensor) -> Tensor:
    return torch.bincount(keys, minlength=1 << _LOW_BITS).cpu()


def _bin_of(counts: Tensor, kept: int) -> tuple[int, int]:
    """The bin that holds the kept-th largest, and its place from the top inside of it."""
    from_above = counts.flip(0).cumsum(0)
    at = int(torch.searchsorted(from_above, kept))
    before = int(from_above[at - 1]) if at else 0
    return counts.numel() - 1 - at, kept - before
