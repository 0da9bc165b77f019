"""How an offline job goes on after a kill: checkpoints of its steps, and the way back into them.

    restored -> step -> step -> saved -> step ... killed
    the same command -> restored -> the step after the saved one

A phase is a pure function of its weights, its moments and its plan of batches: masks come from
the seed and the number of the step, and nothing draws from a generator that goes on. So these, and
the metrics of the steps behind them, are the whole state: wherever it was cut, the end has the
same bytes. The clock decides when a checkpoint is written, and that changes nothing.
"""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import xxhash
from torch import Tensor

from services.errors import ArtifactError
from services.learner.train.checkpoint import (
    latest,
    load_checkpoint,
    model_tensors,
    number_of,
    optimizer_tensors,
    place_of,
    restore_model,
    restore_optimizer,
    save_checkpoint,
)
from services.learner.train.distributed import Worker
from services.learner.train.loop import PhaseResult, Trainable

_TIMES_ITS_COST = 20.0
"""A checkpoint that takes a second to write is followed by 20 s without another."""
_WEIGHTS = "weights of the batches"


class StepCheckpoints:
    """The checkpoints of one phase; every method is called on every worker.

    `folder` None: none are kept. `batches` are the plan of the whole phase.
    """

    def __init__(
        self,
        folder: Path | None,
        batches: Sequence[Sequence[int]],
        minutes: float,
        worker: Worker,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._worker, self._clock = folder, worker, clock
        self._plan, self._every_s = _plan_mark(batches), 60.0 * minutes
        self._took_s = 0.0
        self._saved = 0
        self._saved_at = clock()

    def restore(
        self, model: Trainable, optimizer: torch.optim.Optimizer
    ) -> tuple[int, PhaseResult]:
        """Go back to the last checkpoint; returns its step and the result up to there.

        0 and an empty result where there is none. Raises ArtifactError when it is broken, or of
        other batches.
        """
        found = latest(self._folder) if self._folder is not None else None
        # The leading worker's answer counts: another one may see the folder a moment later.
        step = self._worker.broadcast(number_of(found) if found is not None else 0)
        if self._folder is None or step == 0:
            return 0, PhaseResult()
        checkpoint = load_checkpoint(place_of(self._folder, step))
        if checkpoint.state["plan"] != self._plan:
            raise ArtifactError(
                f"{self._folder} was left by a training on other examples; begin the stage anew:"
                " --fresh <stage>"
            )
        named = model.named_parameters()
        restore_model(named, checkpoint.tensors["model"])
        model.refresh()
        restore_optimizer(named, optimizer, checkpoint.tensors["optimizer"])
        self._worker.barrier()  # nobody writes, and removes the oldest, before all have read
        result = PhaseResult(checkpoint.state["tokens"], checkpoint.state["seconds"])
        result.steps, result.weights = _rows(checkpoint.tensors["metrics"])
        return step, result

    def after_step(
        self, step: int, model: Trainable, optimizer: torch.optim.Optimizer, result: PhaseResult
    ) -> None:
        """Write a checkpoint when it is time; the leading worker alone does."""
        pause = max(self._every_s, _TIMES_ITS_COST * self._took_s) if self._every_s else 0.0
        if self._worker.is_main and self._clock() - self._saved_at >= pause:
            self.save(step, model, optimizer, result)

    def save(
        self, step: int, model: Trainable, optimizer: torch.optim.Optimizer, result: PhaseResult
    ) -> None:
        """Write a checkpoint now, unless the last one is of this step; the leading worker alone."""
        if self._folder is None or step == self._saved:
            return
        began = self._clock()
        tensors = {
            "model": model_tensors(model.named_parameters()),
            "optimizer": optimizer_tensors(model.named_parameters(), optimizer),
            "metrics": _columns(result.steps, result.weights),
        }
        state = {"plan": self._plan, "tokens": result.tokens, "seconds": result.seconds}
        save_checkpoint(self._folder, step, tensors, state)
        self._saved, self._saved_at = step, self._clock()
        self._took_s = self._saved_at - began


def _plan_mark(batches: Sequence[Sequence[int]]) -> str:
    """Equal for equal plans."""
    digest = xxhash.xxh3_64()
    for batch in batches:
        digest.update(",".join(map(str, batch)).encode() + b";")
    return digest.hexdigest()


def _columns(steps: Sequence[dict[str, float]], weights: Sequence[float]) -> dict[str, Tensor]:
    """Every step's metrics as float64 [steps] by name, NaN where a step has none of that name.

    The weights of their batches stand beside them.
    """
    names = sorted({name for step in steps for name in step})
    columns = {name: [step.get(name, math.nan) for step in steps] for name in names}
    return {
        name: torch.tensor(values, dtype=torch.float64)
        for name, values in {_WEIGHTS: list(weights), **columns}.items()
    }


def _rows(columns: dict[str, Tensor]) -> tuple[list[dict[str, float]], list[float]]:
    """The opposite of `_columns`."""
    values = {name: column.tolist() for name, column in columns.items()}
    weights = values.pop(_WEIGHTS)
    steps = [
        {name: column[at] for name, column in values.items() if not math.isnan(column[at])}
        for at in range(len(weights))
    ]
    return steps, weights
