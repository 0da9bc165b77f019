"""The optimizer of a training phase, as its settings ask for."""

from collections.abc import Mapping

import torch
from torch import Tensor

from services.errors import LineageError
from services.learner.optim.omo import OnlineMerging
from services.learner.optim.tau import require_covered
from services.learner.settings import AdamWSettings, OptimizerSettings


def make_optimizer(
    named_parameters: Mapping[str, Tensor],
    settings: OptimizerSettings,
    *,
    tau: Mapping[str, Tensor] | None = None,
    seed: int = 0,
) -> torch.optim.Optimizer:
    """AdamW, or the Online Merging Optimizer around `tau` (reference minus base, by name).

    AdamW with 8-bit moments is the latter with nothing to merge. Raises LineageError when `tau`
    is missing or is not of the parameters' names and shapes.
    """
    named = {name: p for name, p in named_parameters.items() if p.requires_grad}
    if isinstance(settings, AdamWSettings):
        if settings.moments == "float32":
            return _adamw(list(named.values()), settings)
        return OnlineMerging(list(named.items()), settings, tau=None, seed=seed)
    if settings.alpha > 0:
        if tau is None:
            raise LineageError(
                f"optimizer {settings.kind} with alpha {settings.alpha} needs a base model for "
                "tau_r = reference - base; name it as `base`, or set alpha to 0"
            )
        require_covered(named, tau)
    return OnlineMerging(list(named.items()), settings, tau=tau, seed=seed)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """The learning rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def _adamw(parameters: list[Tensor], settings: AdamWSettings) -> torch.optim.AdamW:
    matrices = [p for p in parameters if p.ndim >= 2]
    vectors = [p for p in parameters if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        fused=True,
    )
