"""The merging rules of the Online Merging Optimizer, on one tensor at a time.

Symbols of arXiv 2405.17931: dtheta ("step") is Adam's step, tau_r ("tau") is the reference
minus the base, p ("reserve") is how much of each is kept, a ("alpha") weighs tau. Every function
returns what is added to the weights (Eq. 2); all tensors of a call have one shape and dtype.
The "official" rules do what the authors' script does where it differs from the paper
(docs/algorithms.md).
"""

import torch
from torch import Tensor

_MASK64 = (1 << 64) - 1


def mask_seed(seed: int, parameter: int, step: int) -> int:
    """The seed of one parameter's masks in one step: a counter, mixed (splitmix64).

    It depends on nothing else, so replicas agree and a restart draws the same masks.
    """
    mixed = seed & _MASK64
    for counter in (parameter, step):
        mixed = (mixed + 0x9E3779B97F4A7C15 * (counter + 1)) & _MASK64
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK64
        mixed ^= mixed >> 31
    return mixed


def random_mask(like: Tensor, reserve: float, generator: torch.Generator) -> Tensor:
    """1 with probability `reserve`, else 0; shape, dtype and device of `like`."""
    return torch.empty_like(like).bernoulli_(reserve, generator=generator)


def top_fraction(values: Tensor, reserve: float) -> Tensor:
    """F_T (Eq. 5): the largest `reserve` of the values by magnitude, at least one; else 0.

    Values that tie with the smallest kept one are kept as well.
    """
    kept = max(1, round(reserve * values.numel()))
    if kept >= values.numel():
        return values
    magnitude = values.abs()
    threshold = magnitude.flatten().kthvalue(values.numel() - kept + 1).values
    return values.masked_fill(magnitude < threshold, 0.0)


def ondare(
    step: Tensor,
    tau: Tensor | None,
    *,
    reserve: float,
    alpha: float,
    rescale: bool,
    step_mask: Tensor,
    tau_mask: Tensor | None,
) -> Tensor:
    """(1-a) F_R(dtheta) + a F_R(tau_r) (Eq. 3 and 4).

    F_R multiplies by its mask, and by 1/p when `rescale` is set. `tau` may be None when alpha
    is 0.
    """
    scale = 1.0 / reserve if rescale else 1.0
    update = step.mul(step_mask).mul_((1.0 - alpha) * scale)
    if tau is not None and tau_mask is not None:
        update.add_(tau.mul(tau_mask), alpha=alpha * scale)
    return update


def ondare_official(
    step: Tensor,
    masked_tau: Tensor | None,
    *,
    reserve: float,
    alpha: float,
    step_mask: Tensor,
) -> Tensor:
    """OnDARE as the authors' script does it.

    Survivors are always divided by p (inverted dropout), and `masked_tau` was masked and divided
    once, before training: see `masked_once`.
    """
    update = step.mul(step_mask).mul_((1.0 - alpha) / reserve)
    if masked_tau is not None:
        update.add_(masked_tau, alpha=alpha)
    return update


def masked_once(tau: Tensor, tau_mask: Tensor, reserve: float) -> Tensor:
    """The reference vector as the authors' OnDARE keeps it for the whole training."""
    return tau.mul(tau_mask).div_(reserve)


def onties(
    step: Tensor, kept_tau: Tensor | None, *, reserve: float, alpha: float, rescale: bool
) -> Tensor:
    """(1-a) F_T(dtheta) (+sign) a F_T(tau_r) (Eq. 5 to 7).

    (+sign) adds the two weighted terms where their signs agree and takes the one of larger
    magnitude where they do not. `kept_tau` is F_T(tau_r), which never changes: see
    `top_fraction`; it may be None when alpha is 0.
    """
    scale = 1.0 / reserve if rescale else 1.0
    first = top_fraction(step, reserve) * ((1.0 - alpha) * scale)
    if kept_tau is None:
        return first
    second = kept_tau * (alpha * scale)
    larger = torch.where(first.abs() >= second.abs(), first, second)
    return torch.where(first * second < 0, larger, first + second)


def onties_official(
    step: Tensor, kept_tau: Tensor | None, *, reserve: float, alpha: float, rescale: bool
) -> Tensor:
    """OnTIES as the authors' script does it: the sign is elected by the *unweighted* sum.

    tau_r is far larger than a step, so where they oppose each other the step is dropped.
    """
    scale = 1.0 / reserve if rescale else 1.0
    kept_step = top_fraction(step, reserve) * scale
    if kept_tau is None:
        return kept_step * (1.0 - alpha)
    kept_tau = kept_tau * scale
    positive = kept_step + kept_tau >= 0
    agreeing_step = torch.where((kept_step > 0) == positive, kept_step, 0.0)
    agreeing_tau = torch.where((kept_tau > 0) == positive, kept_tau, 0.0)
    return agreeing_step * (1.0 - alpha) + agreeing_tau * alpha
