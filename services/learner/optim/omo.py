"""The Online Merging Optimizer: Adam whose steps are merged with the reference vector.

Source: arXiv 2405.17931, Eq. 2 to 7 and algorithm 2. The merging rules are in `merging.py`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

import torch
from torch import Tensor

from services.learner.optim.merging import (
    mask_seed,
    masked_once,
    ondare,
    ondare_official,
    onties,
    onties_official,
    random_mask,
    top_fraction,
)
from services.learner.settings import OnDARESettings, OnTIESSettings

_CHUNK_VALUES = 1 << 26
"""Values whose steps exist at once: bounds the memory the step needs beside the state."""


class OnlineMerging(torch.optim.Optimizer):  # type: ignore[misc]
    """AdamW's moments, then OnDARE or OnTIES; with reserve 1 and alpha 0 it is AdamW.

    `named_parameters`: in the model's order, which the masks are counted by. `tau`: reference
    minus base by parameter name, same shapes; it may be None when alpha is 0. It is kept outside
    the state, so checkpoints do not carry it. The state of a parameter is AdamW's ("step",
    "exp_avg", "exp_avg_sq"), and with merge_every > 1 an "anchor": the weights at the last merge.

    Matrices decay by lr * weight_decay before the step (arXiv 1711.05101); vectors (norms,
    biases) do not. With `count_changes` set, `changed_values` counts the values the last step
    changed.
    """

    def __init__(
        self,
        named_parameters: Sequence[tuple[str, Tensor]],
        settings: OnDARESettings | OnTIESSettings,
        *,
        tau: Mapping[str, Tensor] | None,
        seed: int,
    ) -> None:
        if tau is None and settings.alpha > 0:
            raise ValueError("alpha > 0 needs the reference vector")
        decays = [p for _, p in named_parameters if p.ndim >= 2]
        rest = [p for _, p in named_parameters if p.ndim < 2]
        groups = [
            {"params": decays, "weight_decay": settings.weight_decay},
            {"params": rest, "weight_decay": 0.0},
        ]
        super().__init__([group for group in groups if group["params"]], {"lr": settings.lr})
        self.settings = settings
        self.count_changes = False
        self._seed = seed
        self._index = {parameter: at for at, (_, parameter) in enumerate(named_parameters)}
        self._tau: dict[Tensor, Tensor] = {}
        self._changed: list[Tensor] = []
        if tau is not None and settings.alpha > 0:
            for name, parameter in named_parameters:
                self._tau[parameter] = self._kept_tau(parameter, tau[name])

    @property
    def changed_values(self) -> int:
        """Values that the last step changed; 0 unless `count_changes` was set before it."""
        return int(sum(int(count) for count in self._changed))

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Any) -> float: ...

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def step(self, closure: Any = None) -> float | None:
        """One step over every parameter that has a gradient."""
        loss: float | None = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._changed = []
        for group in self.param_groups:
            for parameters in _chunks([p for p in group["params"] if p.grad is not None]):
                self._step_chunk(parameters, group["lr"], group["weight_decay"])
        return loss

    def _step_chunk(self, parameters: list[Tensor], lr: float, weight_decay: float) -> None:
        steps = self._adam_steps(parameters, lr)
        kept = 1.0 - lr * weight_decay
        if kept != 1.0:
            torch._foreach_mul_(parameters, kept)
        if self.settings.merge_every == 1:
            for parameter, step in zip(parameters, steps, strict=True):
                self._add_merged(parameter, step, parameter)
            return
        anchors = [self.state[parameter]["anchor"] for parameter in parameters]
        if kept != 1.0:
            torch._foreach_mul_(anchors, kept)
        for parameter, step, anchor in zip(parameters, steps, anchors, strict=True):
            self._step_k(parameter, step, anchor)

    def _step_k(self, parameter: Tensor, step: Tensor, anchor: Tensor) -> None:
        """Algorithm 2; dc is the weights minus the anchor, so what is dropped returns exactly."""
        if int(self.state[parameter]["step"]) % self.settings.merge_every:
            self._count(parameter, parameter + step)
            parameter.add_(step)
            return
        step.add_(parameter - anchor)
        self._add_merged(parameter, step, anchor)
        anchor.copy_(parameter)

    def _add_merged(self, parameter: Tensor, step: Tensor, start: Tensor) -> None:
        """parameter = start + merged(step); `start` may be the parameter itself."""
        update = self._merged(parameter, step)
        if self.count_changes or start is not parameter:
            after = start + update
            self._count(parameter, after)
            parameter.copy_(after)
        else:
            parameter.add_(update)

    def _merged(self, parameter: Tensor, step: Tensor) -> Tensor:
        rule = self.settings
        if rule.reserve == 1.0 and rule.alpha == 0.0:
            return step
        tau = self._tau.get(parameter)
        tau = tau.to(step.dtype) if tau is not None else None
        if isinstance(rule, OnTIESSettings):
            merge = onties if rule.mode == "paper" else onties_official
            return merge(step, tau, reserve=rule.reserve, alpha=rule.alpha, rescale=rule.rescale)
        generator = self._generator(parameter, int(self.state[parameter]["step"]))
        step_mask = random_mask(step, rule.reserve, generator)
        if rule.mode == "official":
            return ondare_official(
                step, tau, reserve=rule.reserve, alpha=rule.alpha, step_mask=step_mask
            )
        return ondare(
            step,
            tau,
            reserve=rule.reserve,
            alpha=rule.alpha,
            rescale=rule.rescale,
            step_mask=step_mask,
            tau_mask=None if tau is None else random_mask(step, rule.reserve, generator),
        )

    def _adam_steps(self, parameters: list[Tensor], lr: float) -> list[Tensor]:
        """Moments updated in place; returns -lr * m_hat / (sqrt(v_hat) + eps) for each."""
        rule = self.settings
        states = [self._state_of(parameter) for parameter in parameters]
        for state in states:
            state["step"] += 1
        counts = [float(state["step"]) for state in states]
        grads = [parameter.grad for parameter in parameters]
        means = [state["exp_avg"] for state in states]
        squares = [state["exp_avg_sq"] for state in states]
        torch._foreach_lerp_(means, grads, 1.0 - rule.beta1)
        torch._foreach_mul_(squares, rule.beta2)
        torch._foreach_addcmul_(squares, grads, grads, 1.0 - rule.beta2)
        steps: list[Tensor] = list(torch._foreach_sqrt(squares))
        torch._foreach_div_(steps, [(1.0 - rule.beta2**count) ** 0.5 for count in counts])
        torch._foreach_add_(steps, rule.eps)
        torch._foreach_reciprocal_(steps)
        torch._foreach_mul_(steps, means)
        torch._foreach_mul_(steps, [-lr / (1.0 - rule.beta1**count) for count in counts])
        return steps

    def _state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
            if self.settings.merge_every > 1:
                state["anchor"] = parameter.detach().clone()
        return state

    def _kept_tau(self, parameter: Tensor, tau: Tensor) -> Tensor:
        """tau as it is held: its type, and what the rule fixes once and for all."""
        rule = self.settings
        tau = tau.to(parameter.device)
        if isinstance(rule, OnTIESSettings):
            tau = top_fraction(tau, rule.reserve)
        elif rule.mode == "official":
            mask = random_mask(tau, rule.reserve, self._generator(parameter, 0))
            tau = masked_once(tau, mask, rule.reserve)
        return tau.to(getattr(torch, rule.tau_dtype))

    def _generator(self, parameter: Tensor, step: int) -> torch.Generator:
        generator = torch.Generator(device=parameter.device)
        return generator.manual_seed(mask_seed(self._seed, self._index[parameter], step))

    def _count(self, before: Tensor, after: Tensor) -> None:
        if self.count_changes:
            self._changed.append((before != after).sum())


def _chunks(parameters: list[Tensor]) -> Iterator[list[Tensor]]:
    chunk: list[Tensor] = []
    values = 0
    for parameter in parameters:
        if chunk and values + parameter.numel() > _CHUNK_VALUES:
            yield chunk
            chunk, values = [], 0
        chunk.append(parameter)
        values += parameter.numel()
    if chunk:
        yield chunk
