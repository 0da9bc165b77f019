"""RMSNorm and SwiGLU with the few passes over memory that they need.

transformers writes both as chains of elementwise operations: each is a pass over memory and keeps
its input for the backward pass. These keep what cannot be computed again cheaply: a norm's input
and one number a token (Zhang and Sennrich, arXiv 1910.07467), a gate and what it is multiplied
with (Shazeer, arXiv 2002.05202). The values are the same up to rounding in float32; in bfloat16
the norm is float32 inside and rounded once, at its end.
"""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_NORMS = ("LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm", "Qwen2MoeRMSNorm", "Qwen3RMSNorm")
_GATED = ("LlamaMLP", "MistralMLP", "Qwen2MLP", "Qwen2MoeMLP", "Qwen3MLP")
_SILU = ("SiLU", "SiLUActivation")
"""Classes of transformers that compute exactly this. Others stay as they are."""


def fuse(module: nn.Module) -> None:
    """Let the module's norms and gated feed-forward parts compute through the functions here."""
    for part in module.modules():
        kind = type(part).__name__
        if kind in _NORMS:
            part.forward = partial(_norm, part)
        elif kind in _GATED and type(part.act_fn).__name__ in _SILU:
            part.forward = partial(_gated, part)


def _norm(part: Any, hidden: Tensor) -> Tensor:
    found: Tensor = _RMSNorm.apply(hidden, part.weight, part.variance_epsilon, _computes_in(hidden))
    return found


def _gated(part: Any, hidden: Tensor) -> Tensor:
    found: Tensor = part.down_proj(_SwiGLU.apply(part.gate_proj(hidden), part.up_proj(hidden)))
    return found


def _computes_in(tensor: Tensor) -> torch.dtype:
    kind = tensor.device.type
    if torch.is_autocast_enabled(kind):
        dtype: torch.dtype = torch.get_autocast_dtype(kind)
        return dtype
    return tensor.dtype


class _RMSNorm(torch.autograd.Function):  # type: ignore[misc]
    """y = w * x / sqrt(mean(x^2) + eps) over the last dimension."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        exact = x.float()
        norm = torch.linalg.vector_norm(exact, dim=-1, keepdim=True)
        scale = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (exact * scale).mul_(weight).to(dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        upstream = grads[0].float()
        normed = x.float() * scale
        of_weight = None
        if ctx.needs_input_grad[1]:
            of_weight = (upstream * normed).flatten(0, -2).sum(dim=0).to(weight.dtype)
        below = upstream * weight
        along = (below * normed).mean(dim=-1, keepdim=True)
        below.sub_(normed.mul_(along)).mul_(scale)
        return below.to(x.dtype), of_weight, None, None


class _SwiGLU(torch.autograd.Function):  # type: ignore[misc]
    """silu(gate) * up."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        (upstream,) = grads
        of_up = F.silu(gate).mul_(upstream)
        of_gate: Tensor = torch.ops.aten.silu_backward(upstream * up, gate)
        return of_gate, of_up
