"""Seconds of each step of a transformers Trainer, and of its parts."""

import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback


class Profile(TrainerCallback):
    """`steps`: seconds and parts of each. Models are saved outside of every step, if they are."""

    def __init__(self, save_every: int = 1, out: Path | None = None) -> None:
        self.steps: list[dict[str, float]] = []
        self._save_every, self._out = save_every, out
        self._parts: dict[str, float] = defaultdict(float)
        self._began = self._optimizer = 0.0

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its seconds added to a part of the step at hand."""

        def call(*args: Any, **more: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*args, **more)
            finally:
                self._parts[part] += time.perf_counter() - began

        return call

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """A step's clock starts."""
        self._parts.clear()
        self._began = time.perf_counter()

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        """Gradients are clipped."""
        self._optimizer = time.perf_counter()

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        """Weights are new."""
        self._parts["optimizer"] += time.perf_counter() - self._optimizer

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """A step's clock stops; then the model is saved, if it is to be."""
        self.steps.append({"seconds": time.perf_counter() - self._began, **self._parts})
        if self._out and state.global_step % self._save_every == 0:
            folder = self._out / f"step-{state.global_step:06d}"
            more["model"].save_pretrained(folder)
            more["processing_class"].save_pretrained(folder)
