"""The optimizer of a training phase, as its settings ask for."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from services.errors import LineageError
from services.learner.optim.omo import OnlineMerging
from services.learner.settings import AdamWSettings, OptimizerSettings


def make_optimizer(
    model: nn.Module,
    settings: OptimizerSettings,
    *,
    tau: Mapping[str, Tensor] | None = None,
    seed: int = 0,
) -> torch.optim.Optimizer:
    """AdamW, or the Online Merging Optimizer around `tau` (reference minus base, by name)."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if isinstance(settings, AdamWSettings):
        return _adamw([p for _, p in named], settings)
    if settings.alpha > 0 and tau is None:
        raise LineageError(
            f"optimizer {settings.kind} with alpha {settings.alpha} needs a base model for "
            "tau_r = reference - base; name it as `base`, or set alpha to 0"
        )
    return OnlineMerging(named, settings, tau=tau, seed=seed)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """The learning rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def reference_vector(reference: nn.Module, base: nn.Module) -> dict[str, Tensor]:
    """tau_r = reference - base, by parameter name.

    Raises LineageError naming the first tensor whose name or shape differs.
    """
    ours = dict(reference.named_parameters())
    theirs = dict(base.named_parameters())
    for name in [*ours, *(name for name in theirs if name not in ours)]:
        if name not in ours or name not in theirs:
            where = "base" if name not in theirs else "reference"
            raise LineageError(
                f"tau_r = reference - base: {name} is missing in the {where}; "
                "base must be the model the reference was trained from"
            )
        if ours[name].shape != theirs[name].shape:
            raise LineageError(
                f"tau_r = reference - base: {name} is {tuple(ours[name].shape)} in the reference "
                f"and {tuple(theirs[name].shape)} in the base; they must be of one shape"
            )
    return {name: ours[name].detach() - theirs[name].detach() for name in ours}


def _adamw(parameters: list[nn.Parameter], settings: AdamWSettings) -> torch.optim.AdamW:
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
