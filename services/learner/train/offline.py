"""What the offline training jobs share: set a model up, run one phase, write the result."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from services.errors import DataError
from services.learner.jobs.settings import Place
from services.learner.losses.objectives import Objective
from services.learner.model.policy import Trained
from services.learner.model.stored import StoredTensors
from services.learner.optim.build import make_optimizer
from services.learner.optim.schedule import lr_factor
from services.learner.optim.tau import ReferenceVector
from services.learner.settings import AdamWSettings, TrainSettings
from services.learner.train.batches import plan_batches
from services.learner.train.distributed import Worker
from services.learner.train.hold import Hold
from services.learner.train.loop import PhaseResult, Report, StepReporter, train_phase
from services.learner.train.resume import StepCheckpoints
from services.telemetry.record.events import Note, StageHeld

Example = TypeVar("Example")
Later = TypeVar("Later", covariant=True)


def prepared(module: Any, settings: TrainSettings, worker: Worker) -> Any:
    """The module on the worker's device, with gradient checkpointing when asked for."""
    module = module.to(worker.device)
    if settings.gradient_checkpointing:
        module.gradient_checkpointing_enable({"use_reentrant": False})
    return module


def reference_delta(
    reference: str | Path,
    base: str | Path | None,
    settings: TrainSettings,
    device: torch.device | str = "cpu",
) -> Mapping[str, Tensor] | None:
    """tau_r for OMO from two model folders, or None when the optimizer needs none.

    On a CPU it is computed from the files as it is needed; a GPU holds it.
    """
    rule = settings.optimizer
    if isinstance(rule, AdamWSettings) or rule.alpha == 0 or base is None:
        return None
    tau = ReferenceVector(
        StoredTensors(reference), StoredTensors(base), getattr(torch, rule.tau_dtype)
    )
    if torch.device(device).type == "cpu":
        return tau
    return {name: tau[name].to(device) for name in tau}


@dataclass(frozen=True)
class LaterPhase(Generic[Later]):
    """Steps that follow on other examples, with the same optimizer and under the same schedule."""

    examples: Sequence[Later]
    steps: Callable[[int], int]
    """How many, of the number of steps before."""
    batch_size: int
    begin: Callable[[], None]
    """What is done to the model before the first of them, also where a job goes on inside them."""


def run_offline(
    model: Trained,
    tokenizer: Any,
    objective: Objective[Example],
    examples: Sequence[Example],
    settings: TrainSettings,
    place: Place,
    *,
    tau: Mapping[str, Tensor] | None,
    worker: Worker,
    report: Report,
    later: LaterPhase[Example] | None = None,
) -> PhaseResult:
    """All steps of an offline job; those that a checkpoint in `place.folder` holds are not taken
    again. Raises DataError when there is no example."""
    if not examples:
        raise DataError(
            f"{place.stage}: no example is left to train on; see max_length and the data"
        )
    batches = plan_batches(
        len(examples),
        settings.batch_size,
        epochs=settings.epochs,
        key=(place.seed,),
        max_steps=settings.max_steps,
    )
    earlier = len(batches)
    if later is not None:
        batches += _later_batches(later, earlier, len(examples), place.seed)
        examples = [*examples, *later.examples]
    named = model.named_parameters()
    optimizer = make_optimizer(named, settings.optimizer, tau=tau, seed=place.seed)
    checkpoints = StepCheckpoints(
        Path(place.folder) / "checkpoints" if place.folder else None,
        batches,
        settings.checkpoint_minutes,
        worker,
    )
    done, result = checkpoints.restore(model, optimizer)
    if done and worker.is_main:
        text = f"goes on from step {done:,} of {len(batches):,}"
        report(Note(stage=place.stage, text=text))

    if later is not None and done >= earlier:
        later.begin()
    hold = Hold(
        Path(place.hold) if place.hold else None,
        worker,
        lambda held: report(StageHeld(stage=place.stage, held=held)),
    )

    def after_step(step: int) -> None:
        # A crash in between keeps the same model once more.
        if settings.keep_every and step % settings.keep_every == 0 and worker.is_main:
            keep_model(model, tokenizer, place, f"step-{step:06d}", report)
        checkpoints.after_step(step, model, optimizer, result)
        hold.after_step(step, lambda: checkpoints.save(step, model, optimizer, result))
        if later is not None and step == earlier:
            later.begin()

    peak = settings.optimizer.lr
    return train_phase(
        model,
        optimizer,
        objective,
        examples,
        batches,
        settings,
        lr_at=lambda step: peak * lr_factor(settings.schedule, step, len(batches)),
        worker=worker,
        reporter=StepReporter(
            report, place.stage, len(batches), done, result.tokens, result.seconds, hold.worked
        ),
        after_step=after_step,
        first=done,
        result=result,
        clock=hold.worked,
    )


def _later_batches(later: LaterPhase[Any], earlier: int, offset: int, seed: int) -> list[list[int]]:
    """Its batches, whose examples stand after the `offset` ones of the phase before."""
    planned = plan_batches(
        len(later.examples),
        later.batch_size,
        epochs=1,
        key=(seed, 1),
        max_steps=later.steps(earlier),
    )
    return [[offset + at for at in batch] for batch in planned]


def keep_model(model: Trained, tokenizer: Any, place: Place, name: str, report: Report) -> None:
    """Export a model of the way, and say where it is while the stage is at work."""
    if place.kept is not None:
        model.export(tokenizer, Path(place.kept) / name)
        report(Note(stage=place.stage, text=f"kept a model: {place.kept}/{name}"))


def finish(
    model: Trained,
    tokenizer: Any,
    out: str,
    result: PhaseResult,
    heldout: dict[str, float],
    worker: Worker,
) -> dict[str, float]:
    """Write the model and return the job's metrics: the last tenth of the steps, averaged."""
    if worker.is_main:
        model.export(tokenizer, Path(out))
    worker.barrier()
    metrics = result.mean(last=max(1, len(result.steps) // 10))
    metrics.pop("lr", None)
    return (
        metrics
        | heldout
        | {
            "steps": float(len(result.steps)),
            "tokens": float(result.tokens),
            "seconds": result.seconds,
        }
    )
