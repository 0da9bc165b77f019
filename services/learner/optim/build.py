"""The optimizer of a training phase, as its settings ask for."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from services.errors import LineageError
from services.learner.optim.omo import OnlineMerging
from services.learner.settings import AdamWSettings, OptimizerSettings


def make_optimizer(
    named_parameters: Mapping[str, nn.Parameter],
    settings: OptimizerSettings,
    *,
    tau: Mapping[str, Tensor] | None = None,
    seed: int = 0,
) -> torch.optim.Optimizer:
    """AdamW, or the Online Merging Optimizer around `tau` (reference minus base, by name)."""
    named = [(name, p) for name, p in named_parameters.items() if p.requires_grad]
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


def reference_vector(
    reference: Mapping[str, Tensor], base: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """tau_r = reference - base, float32 by parameter name.

    Raises LineageError naming the first tensor whose name or shape differs.
    """
    for name in [*reference, *(name for name in base if name not in reference)]:
        if name not in reference or name not in base:
            where = "base" if name not in base else "reference"
            raise LineageError(
                f"tau_r = reference - base: {name} is missing in the {where}; "
                "base must be the model the reference was trained from"
            )
        if reference[name].shape != base[name].shape:
            raise LineageError(
                f"tau_r = reference - base: {name} is {tuple(reference[name].shape)} in the "
                f"reference and {tuple(base[name].shape)} in the base; they must be of one shape"
            )
    return {name: reference[name].float() - base[name].float() for name in reference}


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
