"""Float32 master weights, and the bfloat16 matrices that a pass works with.

In bfloat16 every matrix of the module is replaced by a copy that is cast once a step; what a
backward pass finds for it is added to the master's float32 gradient at once. Norms and biases stay
the float32 parameters they are: they are small, and rounding them costs more than it saves.
"""

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

Dtype = Literal["float32", "bfloat16"]


class WorkingWeights:
    """What the optimizer sees of a module (`masters`), and what the module computes with."""

    def __init__(self, module: nn.Module, dtype: Dtype) -> None:
        self.masters: dict[str, nn.Parameter] = dict(module.named_parameters())
        """Float32, by Hugging Face name; tied ones once. Their `.grad` is float32 too."""
        self.dtype = getattr(torch, dtype)
        self._master_of: dict[Tensor, nn.Parameter] = {p: p for p in self.masters.values()}
        self._copies: list[tuple[Tensor, nn.Parameter]] = []
        if dtype == "bfloat16":
            self._copy_matrices(module)

    def master_of(self, parameter: Tensor) -> nn.Parameter:
        """The float32 parameter behind one of the module's."""
        return self._master_of[parameter]

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def refresh(self) -> None:
        """Cast the masters again, after a step or a restore has changed them."""
        for copy, master in self._copies:
            copy.copy_(master)

    def in_dtype(self, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
        """The weights by name, rounded to `dtype`; without a copy where they are held so."""
        copy_of = {master: copy for copy, master in self._copies if dtype == self.dtype}
        for name, master in self.masters.items():
            yield name, copy_of.get(master, master).detach().to(dtype)

    def _copy_matrices(self, module: nn.Module) -> None:
        copy_of: dict[nn.Parameter, nn.Parameter] = {}
        for part in module.modules():
            for name, master in list(part._parameters.items()):
                if master is None or master.ndim < 2:
                    continue
                if master not in copy_of:  # tied matrices share one copy
                    copy_of[master] = self._copied(master)
                part._parameters[name] = copy_of[master]

    def _copied(self, master: nn.Parameter) -> nn.Parameter:
        copy = nn.Parameter(master.detach().to(self.dtype), requires_grad=master.requires_grad)
        self._master_of[copy] = master
        self._copies.append((copy, master))
        if copy.requires_grad:
            copy.register_post_accumulate_grad_hook(self._hand_over)
        return copy

    def _hand_over(self, copy: Any) -> None:
        """A copy's gradient goes to the master, and is let go."""
        if copy.grad is None:  # embedding and head have added theirs to the master themselves
            return
        master = self._master_of[copy]
        if master.grad is None:
            master.grad = copy.grad.float()
        else:
            master.grad.add_(copy.grad)
        copy.grad = None
