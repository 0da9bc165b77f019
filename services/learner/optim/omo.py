"""The Online Merging Optimizer: Adam whose steps are merged with the reference vector.

Source: arXiv 2405.17931, Eq. 2 to 7 and algorithm 2. The merging rules are in `merging.py`, what a
random rule keeps in `masks.py`, Adam's moments in `moments.py`, tau_r in `tau.py`.

A step takes one parameter after the other, in slices that stay in a core's cache: weights,
gradient and moments are read from memory once and written once, and no second copy of anything
is made that is longer than a slice.
"""

import threading
from collections.abc import Mapping, Sequence
from typing import Any, overload

import torch
from torch import Tensor

from services.learner.optim.masks import Draw, kept_positions, mask_seed
from services.learner.optim.merging import above, ondare, onties, onties_official, top_threshold
from services.learner.optim.moments import moments_of
from services.learner.optim.slices import SliceThreads, slices
from services.learner.optim.tau import tau_of
from services.learner.settings import AdamWSettings, OnDARESettings, OnTIESSettings

Counted = tuple[int, int]
"""Values changed, and of these the ones that moved as tau_r points."""


class OnlineMerging(torch.optim.Optimizer):  # type: ignore[misc]
    """Adam's moments, then OnDARE or OnTIES; with reserve 1 and alpha 0 it is AdamW.

    `named_parameters`: in the model's order, which the masks are counted by. `tau`: reference
    minus base by parameter name, same shapes (a `ReferenceVector` is read slice by slice); it may
    be None when alpha is 0. It is kept outside the state, so checkpoints do not carry it. The
    state of a parameter is "step", its moments (moments.py), and with merge_every > 1 an "anchor":
    the weights at the last merge. `settings` of plain AdamW merge nothing: it is there for its
    8-bit moments.

    Matrices decay by lr * weight_decay before the step (arXiv 1711.05101); vectors (norms,
    biases) do not. With `free_gradients` set, each gradient is let go as soon as it is used. With
    `count_changes` set, the last step's changes are counted.
    """

    def __init__(
        self,
        named_parameters: Sequence[tuple[str, Tensor]],
        settings: AdamWSettings | OnDARESettings | OnTIESSettings,
        *,
        tau: Mapping[str, Tensor] | None,
        seed: int,
    ) -> None:
        if isinstance(settings, AdamWSettings):
            rule: OnDARESettings | OnTIESSettings = OnDARESettings(
                **settings.model_dump(exclude={"kind"}), reserve=1.0, alpha=0.0
            )
        else:
            rule = settings
        if tau is None and rule.alpha > 0:
            raise ValueError("alpha > 0 needs the reference vector")
        decays = [p for _, p in named_parameters if p.ndim >= 2]
        rest = [p for _, p in named_parameters if p.ndim < 2]
        groups = [
            {"params": decays, "weight_decay": rule.weight_decay},
            {"params": rest, "weight_decay": 0.0},
        ]
        super().__init__([group for group in groups if group["params"]], {"lr": rule.lr})
        self.settings = rule
        self.count_changes = False
        self.free_gradients = False
        self._seed = seed
        self._index = {parameter: at for at, (_, parameter) in enumerate(named_parameters)}
        self._names = {parameter: name for name, parameter in named_parameters}
        self._threads = SliceThreads()
        self._work = _Work(rule)
        self._tau = tau_of(tau) if tau is not None and rule.alpha > 0 else None
        self._tau_thresholds: dict[Tensor, float] = {}
        self._changed = self._following = 0

    @property
    def changed_values(self) -> int:
        """Values that the last step changed; 0 unless `count_changes` was set before it."""
        return self._changed

    @property
    def share_following_tau(self) -> float | None:
        """Of the values that the last step changed, the share that moved the way tau_r points.

        None without tau_r, or when nothing was counted; a value whose tau_r is 0 does not follow.
        """
        if self._tau is None or not self._changed:
            return None
        return self._following / self._changed

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
        self._changed = self._following = 0
        with self._threads.each_alone():
            for group in self.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is None:
                        continue
                    self._step_parameter(parameter, group["lr"], group["weight_decay"])
                    if self.free_gradients:
                        parameter.grad = None
        return loss

    def _step_parameter(self, parameter: Tensor, lr: float, weight_decay: float) -> None:
        state = self._state_of(parameter)
        state["step"] += 1
        count = int(state["step"])
        merges = count % self.settings.merge_every == 0
        selects = merges and isinstance(self.settings, OnTIESSettings) and self.settings.reserve < 1
        grad = parameter.grad.reshape(-1)
        rounding = self._key(parameter, count, Draw.ROUNDING)
        kept = 1.0 - lr * weight_decay
        self._find_tau_threshold(parameter)

        def advance(piece: slice) -> Counted:
            step = self._work.moments.advance(state, piece, grad[piece], count, lr, rounding)
            if kept != 1.0:
                parameter.view(-1)[piece].mul_(kept)
                if "anchor" in state:
                    state["anchor"].view(-1)[piece].mul_(kept)
            return (0, 0) if selects else self._add(parameter, piece, step, merges, 0.0)

        pieces = slices(parameter)
        counted = self._threads.map(advance, pieces)
        if selects:
            # OnTIES keeps the largest of the whole tensor: first which, then they alone are added.
            def step_of(piece: slice) -> Tensor:
                return self._work.moments.step(state, piece, count, lr)

            threshold = top_threshold(
                lambda at: self._accumulated(parameter, at, step_of(at)),
                pieces,
                self.settings.reserve,
                self._threads.map,
            )
            counted = self._threads.map(
                lambda at: self._add(parameter, at, step_of(at), merges, threshold), pieces
            )
        self._changed += sum(changed for changed, _ in counted)
        self._following += sum(following for _, following in counted)

    def _add(
        self, parameter: Tensor, piece: slice, step: Tensor, merges: bool, threshold: float
    ) -> Counted:
        """Adam's step onto a slice of the weights: merged, or on the way to a merge as it is."""
        weights = parameter.view(-1)[piece]
        tau = self._tau_of(parameter, piece) if merges or self.count_changes else None
        anchor = self.state[parameter].get("anchor")
        before = weights.clone() if self.count_changes else None
        if merges:
            step = self._accumulated(parameter, piece, step)
            if anchor is not None:
                # What the merge drops returns exactly to where the last one left it.
                weights.copy_(anchor.view(-1)[piece])
            step = self._merged(parameter, piece, step, tau, threshold)
        weights.add_(step)
        if merges and anchor is not None:
            anchor.view(-1)[piece].copy_(weights)
        return (0, 0) if before is None else _counted(before, weights, tau)

    def _accumulated(self, parameter: Tensor, piece: slice, step: Tensor) -> Tensor:
        """Algorithm 2's step since the last merge: dc is the weights minus the anchor."""
        anchor = self.state[parameter].get("anchor")
        if anchor is None:
            return step
        return step + (parameter.view(-1)[piece] - anchor.view(-1)[piece])

    def _merged(
        self, parameter: Tensor, piece: slice, step: Tensor, tau: Tensor | None, threshold: float
    ) -> Tensor:
        rule = self.settings
        if rule.reserve == 1.0 and rule.alpha == 0.0:
            return step
        if isinstance(rule, OnTIESSettings):
            merge = onties if rule.mode == "paper" else onties_official
            return merge(
                above(step, threshold),
                tau,
                reserve=rule.reserve,
                alpha=rule.alpha,
                rescale=rule.rescale,
            )
        count = int(self.state[parameter]["step"])
        official = rule.mode == "official"
        return ondare(
            step,
            tau,
            kept_step=self._kept(parameter, piece, count, Draw.STEP),
            # The authors' script masks tau_r once, before the first step.
            kept_tau=None
            if tau is None
            else self._kept(parameter, piece, 0 if official else count, Draw.TAU),
            reserve=rule.reserve,
            alpha=rule.alpha,
            rescale=rule.rescale or official,
        )

    def _kept(self, parameter: Tensor, piece: slice, count: int, draw: Draw) -> Tensor | None:
        key = self._key(parameter, count, draw)
        return kept_positions(key, piece.start, piece.stop, self.settings.reserve, parameter.device)

    def _find_tau_threshold(self, parameter: Tensor) -> None:
        """Of F_T(tau_r), once for every parameter."""
        tau, name = self._tau, self._names[parameter]
        if tau is None or not isinstance(self.settings, OnTIESSettings):
            return
        if parameter not in self._tau_thresholds:
            self._tau_thresholds[parameter] = top_threshold(
                lambda at: tau.flat(name, at.start, at.stop),
                slices(parameter),
                self.settings.reserve,
                self._threads.map,
            )

    def _tau_of(self, parameter: Tensor, piece: slice) -> Tensor | None:
        """A slice of tau_r; for OnTIES F_T of it."""
        name, tau = self._names[parameter], self._tau
        if tau is None:
            return None
        values = tau.flat(name, piece.start, piece.stop).to(parameter.device)
        if isinstance(self.settings, OnTIESSettings):
            values = above(values, self._tau_thresholds[parameter])
        return values

    def _state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state.update(self._work.moments.new_state(parameter))
            if self.settings.merge_every > 1:
                state["anchor"] = parameter.detach().clone()
        return state

    def _key(self, parameter: Tensor, step: int, draw: Draw) -> int:
        return mask_seed(self._seed, self._index[parameter], step, draw)


class _Work(threading.local):
    """Each thread's moments: the buffers that they work in are its own."""

    def __init__(self, rule: OnDARESettings | OnTIESSettings) -> None:
        self.moments = moments_of(rule.moments, rule)


def _counted(before: Tensor, after: Tensor, tau: Tensor | None) -> Counted:
    changed = before != after
    if tau is None:
        return int(changed.sum()), 0
    follows = torch.where(after > before, tau > 0, tau < 0)
    return int(changed.sum()), int((changed & follows).sum())
