"""One training phase: batches through an objective into optimizer steps.

batch -> this worker's share -> micro-batches -> gradients, summed over workers -> clip -> step
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from services.errors import WorkerError
from services.learner.losses.objectives import Objective
from services.learner.optim.build import set_lr
from services.learner.optim.omo import OnlineMerging
from services.learner.settings import TrainSettings
from services.learner.train.batches import micro_batches, shard
from services.learner.train.distributed import Worker
from services.telemetry.record.events import Event, TrainProgress

Example = TypeVar("Example")
Report = Callable[[Event], None]
_REPORT_EVERY_S = 0.5
_EVALUATED_TOKENS = 1 << 12
"""Of one pass without gradients."""
_OF_THE_LOOP = (
    "loss", "grad_norm", "lr", "changed_fraction", "following_tau", "tokens_per_s",
    "limit_fraction",
)  # fmt: skip
"""Metrics of every objective: these names are taken."""


class Trainable(Protocol):
    """A model as a phase sees it."""

    @property
    def pass_tokens(self) -> int:
        """Tokens that go through it at once where the settings name no number."""

    @property
    def useful_flops(self) -> int:
        """Operations of all passes so far, forward and backward."""

    @property
    def flops_limit(self) -> float:
        """Operations a second that its device reaches on its matrices."""

    def named_parameters(self) -> Mapping[str, nn.Parameter]:
        """Float32 weights; a backward pass adds to their float32 gradients."""

    def refresh(self) -> None:
        """The weights were changed."""

    def train(self, mode: bool = True) -> None:
        """Dropout and the like on or off."""


class StepReporter:
    """Steps and tokens of a stage so far; reports about twice a second, and each phase's end."""

    def __init__(
        self,
        report: Report,
        stage: str,
        steps: int,
        first_step: int = 0,
        tokens: int = 0,
        seconds: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`tokens` and `seconds` are those of the steps before `first_step`."""
        self._clock = clock
        self._report, self._stage, self._steps = report, stage, steps
        self.step = first_step
        self._tokens = tokens
        self._started = clock() - seconds
        self._reported = -math.inf

    @property
    def due(self) -> bool:
        """Whether the step now beginning will be reported."""
        return self._clock() - self._reported >= _REPORT_EVERY_S

    def advance(self, tokens: int, metrics: dict[str, float], *, report: bool) -> None:
        """Count one step."""
        self.step += 1
        self._tokens += tokens
        if not report:
            return
        self._reported = self._clock()
        self._report(
            TrainProgress(
                stage=self._stage,
                step=self.step,
                steps=max(self._steps, self.step),
                tokens=self._tokens,
                seconds=self._reported - self._started,
                metrics=metrics,
            )
        )


@dataclass
class PhaseResult:
    """What a phase did: metrics of every step, tokens over all workers, seconds."""

    tokens: int = 0
    seconds: float = 0.0
    steps: list[dict[str, float]] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)

    def mean(self, last: int | None = None) -> dict[str, float]:
        """Metrics averaged over the steps (the `last` ones), each by its batch's weight."""
        steps, weights = self.steps[-(last or 0) :], self.weights[-(last or 0) :]
        if not steps:
            return {}
        total = sum(weights)
        names = [name for name in steps[0] if all(name in step for step in steps)]
        return {
            name: sum(step[name] * w for step, w in zip(steps, weights, strict=True)) / total
            for name in names
        }


def train_phase(
    model: Trainable,
    optimizer: torch.optim.Optimizer,
    objective: Objective[Example],
    examples: Sequence[Example],
    batches: Sequence[Sequence[int]],
    settings: TrainSettings,
    *,
    lr_at: Callable[[int], float],
    worker: Worker,
    reporter: StepReporter,
    after_step: Callable[[int], None] = lambda step: None,
    first: int = 0,
    result: PhaseResult | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> PhaseResult:
    """Take one optimizer step a batch; `batches` index `examples`, the same on every worker.

    The gradient is that of (sum of losses over the batch) / (the batch's weight), whatever the
    number of workers and micro-batches. `lr_at` gives the learning rate of the i-th batch;
    `after_step` is called on every worker with the number of each step, from 1. A phase that goes
    on leaves its `first` batches out and adds to their `result`. `clock` stands still while
    `after_step` waits for something. Raises WorkerError naming step and examples when the loss or
    the gradient is not finite.
    """
    parameters = [p for p in model.named_parameters().values() if p.requires_grad]
    sizes = [objective.tokens(example) for example in examples]
    budget = settings.micro_batch_tokens or model.pass_tokens
    result = PhaseResult() if result is None else result
    started = clock() - result.seconds
    model.train()
    for at, batch in enumerate(batches[first:], start=first):
        due = worker.is_main and (reporter.due or at + 1 == len(batches))
        began, flops = time.monotonic(), model.useful_flops
        if isinstance(optimizer, OnlineMerging):
            optimizer.count_changes, optimizer.free_gradients = due, True
        set_lr(optimizer, lr_at(at))
        share = shard(batch, sizes, worker.rank, worker.world)
        cuts = micro_batches(share, sizes, budget)
        weight = sum(objective.weight(examples[i]) for i in batch)
        metrics = _gradients(
            objective, [[examples[i] for i in cut] for cut in cuts], parameters, weight, worker
        )
        norm = torch.nn.utils.clip_grad_norm_(parameters, settings.clip_norm)
        metrics |= {"grad_norm": float(norm), "lr": lr_at(at)}
        _check_finite(metrics, reporter.step + 1, [objective.name(examples[i]) for i in batch])
        optimizer.step()
        model.refresh()
        if isinstance(optimizer, OnlineMerging) and due:
            metrics |= _changes(optimizer, parameters)
        tokens = sum(sizes[i] for i in batch)
        speed = _speed(model, tokens, flops, time.monotonic() - began) if due else {}
        reporter.advance(tokens, metrics | speed, report=due)
        result.steps.append(metrics)
        result.weights.append(weight)
        result.tokens += tokens
        result.seconds = clock() - started
        after_step(at + 1)
    model.train(False)
    return result


def evaluate_sums(
    objective: Objective[Example],
    examples: Sequence[Example],
    worker: Worker,
    tokens: int = _EVALUATED_TOKENS,
) -> dict[str, float]:
    """The objective's mean loss and metrics over examples, without gradients; {} of none."""
    if not examples:
        return {}
    sizes = [objective.tokens(example) for example in examples]
    share = shard(range(len(examples)), sizes, worker.rank, worker.world)
    totals: dict[str, Tensor] = {}
    with torch.no_grad():
        for cut in micro_batches(share, sizes, tokens):
            loss, sums = objective.sums([examples[i] for i in cut])
            _add(objective, totals, loss, sums)
    weight = sum(objective.weight(example) for example in examples)
    return _means(objective, totals, weight, worker)


def _changes(optimizer: OnlineMerging, parameters: Sequence[Tensor]) -> dict[str, float]:
    """Of the last step: the share of the values it changed, and of these those that tau_r led."""
    values = sum(parameter.numel() for parameter in parameters)
    found = {"changed_fraction": optimizer.changed_values / values}
    if (following := optimizer.share_following_tau) is not None:
        found["following_tau"] = following
    return found


def _gradients(
    objective: Objective[Example],
    passes: Sequence[Sequence[Example]],
    parameters: Sequence[Tensor],
    weight: float,
    worker: Worker,
) -> dict[str, float]:
    """Fill every gradient with that of the whole batch's mean; returns its metrics."""
    for parameter in parameters:
        parameter.grad = None
    totals: dict[str, Tensor] = {}
    for examples in passes:
        loss, sums = objective.sums(examples)
        (loss / weight).backward()
        _add(objective, totals, loss.detach(), sums)
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    worker.all_reduce_([p.grad for p in parameters if p.grad is not None])
    return _means(objective, totals, weight, worker)


def _add(
    objective: Objective[Any], totals: dict[str, Tensor], loss: Tensor, sums: dict[str, Tensor]
) -> None:
    """Add a pass's sums to the totals, unless its metrics are not the ones declared."""
    kind, declared = type(objective).__name__, set(objective.metrics)
    if taken := declared & set(_OF_THE_LOOP):
        raise WorkerError(
            f"{kind} declares the metric {min(taken)}, which every loss has; rename it"
        )
    if unknown := sums.keys() - declared:
        raise WorkerError(
            f"{kind} returned the metric {min(unknown)} and does not declare it; add it to the "
            "class's `metrics`"
        )
    if missing := declared - sums.keys():
        raise WorkerError(
            f"{kind} declares the metric {min(missing)} and did not return it; let `sums` return "
            "every metric each time"
        )
    for name, value in {"loss": loss, **sums}.items():
        totals[name] = totals[name] + value if name in totals else value


def _means(
    objective: Objective[Any], totals: dict[str, Tensor], weight: float, worker: Worker
) -> dict[str, float]:
    # A worker without a share has no totals: the declared names are the list all agree on.
    names = ("loss", *objective.metrics)
    sums = worker.all_reduce_values([float(totals.get(name, 0.0)) for name in names])
    return {name: value / weight for name, value in zip(names, sums, strict=True)}


def _speed(model: Trainable, tokens: int, before: int, seconds: float) -> dict[str, float]:
    """Of a step: tokens of all workers, and this worker's share of what its device can do."""
    reached = (model.useful_flops - before) / seconds
    return {"tokens_per_s": tokens / seconds, "limit_fraction": reached / model.flops_limit}


def _check_finite(metrics: dict[str, float], step: int, names: Sequence[str]) -> None:
    for what in ("loss", "grad_norm"):
        if not math.isfinite(metrics[what]):
            shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
            raise WorkerError(
                f"{what} is {metrics[what]} at step {step} ({shown}); lower the learning rate, "
                "or look at these examples"
            )
