"""The training loop on a loss that is done by hand: gradients, clipping, refusals, averages."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from services.errors import WorkerError
from services.learner.optim.build import make_optimizer
from services.learner.settings import OnDARESettings, TrainSettings
from services.learner.train.distributed import Worker
from services.learner.train.loop import PhaseResult, StepReporter, evaluate_sums, train_phase
from services.telemetry.record.events import Event, TrainProgress


@dataclass(frozen=True)
class Point:
    """An example whose loss is its slope times the weights, and counts for `weight`."""

    id: str
    slope: tuple[float, float]
    weight: float = 1.0


class Line(torch.nn.Module):
    """Two weights; a step is 600 operations, the device does 1,000 a second."""

    flops_limit = 1000.0

    def __init__(self) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
        self.refreshed = self.useful_flops = 0

    @property
    def pass_tokens(self) -> int:
        return 100

    def named_parameters(self) -> dict[str, torch.nn.Parameter]:  # type: ignore[override]
        return {"w": self.w}

    def refresh(self) -> None:
        self.refreshed += 1
        self.useful_flops += 600


class Slopes:
    """sum_i slope_i . w; its gradient is the sum of the slopes."""

    def __init__(self, model: Line, metrics: tuple[str, ...] = ("count",)) -> None:
        self._model = model
        self.metrics = metrics
        self.seen: list[list[str]] = []

    def name(self, example: Point) -> str:
        return example.id

    def tokens(self, example: Point) -> int:
        return 10

    def weight(self, example: Point) -> float:
        return example.weight

    def sums(self, examples: Sequence[Point]) -> tuple[Tensor, dict[str, Tensor]]:
        self.seen.append([example.id for example in examples])
        slopes = torch.tensor([example.slope for example in examples])
        return (slopes @ self._model.w).sum(), {"count": torch.tensor(float(len(examples)))}


def phase(
    points: list[Point], batches: list[list[int]], **settings: object
) -> tuple[Line, PhaseResult, list[TrainProgress]]:
    """A phase with plain gradient descent at 0.5."""
    model, events = Line(), list[Event]()
    result = train_phase(
        model,
        torch.optim.SGD([model.w], lr=1.0),
        Slopes(model),
        points,
        batches,
        TrainSettings.model_validate(settings),
        lr_at=lambda _: 0.5,
        worker=Worker(),
        reporter=StepReporter(events.append, "x", len(batches)),
    )
    return model, result, [event for event in events if isinstance(event, TrainProgress)]


def test_a_step_follows_the_gradient_of_the_weighted_mean() -> None:
    points = [Point("a", (0.1, 0.0), 1.0), Point("b", (0.3, 0.4), 3.0)]
    model, result, _ = phase(points, [[0, 1]], micro_batch_tokens=10)
    # gradient ((0.1, 0) + (0.3, 0.4)) / 4
    assert model.w.tolist() == pytest.approx([1.0 - 0.5 * 0.1, 2.0 - 0.5 * 0.1])
    (step,) = result.steps
    assert step["loss"] == pytest.approx((0.1 + 0.3 + 0.8) / 4)
    assert step["count"] == pytest.approx(2 / 4)
    assert step["grad_norm"] == pytest.approx(0.1 * 2**0.5)
    assert result.tokens == 20
    assert model.refreshed == 1


def test_a_merging_step_says_what_it_changed_and_lets_its_gradients_go() -> None:
    model = Line()
    rule = OnDARESettings(lr=0.1, reserve=1.0, alpha=1e-3)
    # The first weight's step goes with tau_r, the second's against it.
    tau = {"w": torch.tensor([-1.0, 1.0])}
    result = train_phase(
        model,
        make_optimizer({"w": model.w}, rule, tau=tau),
        Slopes(model),
        [Point("a", (0.1, 0.3))],
        [[0]],
        TrainSettings(optimizer=rule),
        lr_at=lambda _: 0.1,
        worker=Worker(),
        reporter=StepReporter(lambda _: None, "x", 1),
    )
    (step,) = result.steps
    assert step["changed_fraction"] == 1.0
    assert step["following_tau"] == 0.5
    assert model.w.grad is None


def test_passes_are_cut_by_tokens() -> None:
    points = [Point(f"p{at}", (0.1, 0.1)) for at in range(23)]
    for given, expected in ((30, [3] * 7 + [2]), (0, [10, 10, 3]), (5, [1] * 23)):
        model = Line()
        objective = Slopes(model)
        train_phase(
            model,
            torch.optim.SGD([model.w], lr=1.0),
            objective,
            points,
            [list(range(23))],
            TrainSettings(micro_batch_tokens=given),
            lr_at=lambda _: 0.5,
            worker=Worker(),
            reporter=StepReporter(lambda _: None, "x", 1),
        )
        assert [len(seen) for seen in objective.seen] == expected


def test_a_gradient_above_the_limit_is_scaled_down_to_it() -> None:
    model, result, _ = phase([Point("a", (3.0, 4.0))], [[0]], clip_norm=0.5)
    # Of length 5, so clipped to a tenth; the norm reported is the one before.
    assert model.w.tolist() == pytest.approx([1.0 - 0.5 * 0.3, 2.0 - 0.5 * 0.4], rel=1e-5)
    assert result.steps[0]["grad_norm"] == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("slope", "refused"),
    [
        ((float("nan"), 1.0), "loss is nan"),
        ((float("inf"), 1.0), "loss is inf"),
        ((3e38, -1.5e38), "grad_norm is inf"),
    ],
)
def test_a_loss_or_gradient_that_is_not_finite_is_refused(
    slope: tuple[float, float], refused: str
) -> None:
    points = [Point("fine", (0.1, 0.1)), Point("broken", slope)]
    with pytest.raises(WorkerError, match=rf"{refused} at step 2 \(broken\); lower the learning"):
        phase(points, [[0], [1]])


def test_an_error_names_four_examples_and_how_many_more() -> None:
    points = [Point(f"p{at}", (float("nan"), 0.0)) for at in range(6)]
    with pytest.raises(WorkerError, match=r"\(p0, p1, p2, p3 and 2 more\)"):
        phase(points, [list(range(6))])


def test_progress_counts_every_step_and_reports_the_last() -> None:
    points = [Point("a", (0.1, 0.1)), Point("b", (0.1, 0.1))]
    _, _, events = phase(points, [[0], [1], [0, 1]])
    assert (events[-1].step, events[-1].steps, events[-1].tokens) == (3, 3, 40)
    assert events[-1].metrics["lr"] == 0.5


def test_a_reported_step_says_how_fast_it_was_and_how_near_the_limit() -> None:
    points = [Point("a", (0.1, 0.1)), Point("b", (0.1, 0.1))]
    _, result, events = phase(points, [[0], [0, 1]])
    speed = events[-1].metrics
    # 20 tokens and 600 operations took the same time, whatever it was
    assert speed["limit_fraction"] / speed["tokens_per_s"] == pytest.approx(600 / 1000 / 20)
    assert not {"limit_fraction", "tokens_per_s"} & result.mean().keys()


def test_metrics_are_averaged_by_the_weight_of_their_batch() -> None:
    result = PhaseResult(
        steps=[{"loss": 9.0}, {"loss": 1.0, "extra": 5.0}, {"loss": 4.0}],
        weights=[5.0, 1.0, 3.0],
    )
    assert result.mean() == {"loss": pytest.approx((45.0 + 1.0 + 12.0) / 9.0)}
    assert result.mean(last=2) == {"loss": pytest.approx((1.0 + 12.0) / 4.0)}
    assert PhaseResult().mean() == {}


def summed(model: Line, metrics: tuple[str, ...]) -> PhaseResult:
    return train_phase(
        model,
        torch.optim.SGD([model.w], lr=1.0),
        Slopes(model, metrics),
        [Point("a", (0.1, 0.1))],
        [[0]],
        TrainSettings(),
        lr_at=lambda _: 0.5,
        worker=Worker(),
        reporter=StepReporter(lambda _: None, "x", 1),
    )


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ((), "Slopes returned the metric count and does not declare it"),
        (("count", "lost"), "Slopes declares the metric lost and did not return it"),
        (("count", "loss"), "Slopes declares the metric loss, which every loss has"),
    ],
)
def test_a_loss_cannot_lose_a_metric(declared: tuple[str, ...], message: str) -> None:
    model = Line()
    with pytest.raises(WorkerError, match=message):
        summed(model, declared)
    with pytest.raises(WorkerError, match=message):
        evaluate_sums(Slopes(model, declared), [Point("a", (0.1, 0.1))], Worker())
    assert set(summed(model, ("count",)).steps[0]) == {"loss", "count", "grad_norm", "lr"}


class Second(Worker):
    """The second of two workers; the first one's sums are given."""

    def all_reduce_(self, tensors: Sequence[Tensor]) -> None:
        for tensor in tensors:
            assert not tensor.any()

    def all_reduce_values(self, values: Sequence[float]) -> list[float]:
        return [mine + other for mine, other in zip(values, [6.0, 3.0], strict=True)]


def test_a_worker_without_a_share_speaks_of_the_same_metrics() -> None:
    model = Line()
    objective = Slopes(model)
    result = train_phase(
        model,
        torch.optim.SGD([model.w], lr=1.0),
        objective,
        [Point("a", (0.1, 0.1), weight=2.0)],
        [[0]],
        TrainSettings(),
        lr_at=lambda _: 0.5,
        worker=Second(rank=1, world=2),
        reporter=StepReporter(lambda _: None, "x", 1),
    )
    assert objective.seen == []
    assert (result.steps[0]["loss"], result.steps[0]["count"]) == (3.0, 1.5)


def test_an_evaluation_of_nothing_has_no_metrics() -> None:
    assert evaluate_sums(Slopes(Line()), [], Worker()) == {}


def test_evaluation_is_the_weighted_mean_and_leaves_no_gradient() -> None:
    model = Line()
    objective = Slopes(model)
    points = [Point("a", (1.0, 0.0), 1.0), Point("b", (0.0, 2.0), 3.0), Point("c", (1.0, 1.0), 4.0)]
    found = evaluate_sums(objective, points, Worker(), tokens=20)
    assert found == {"loss": pytest.approx((1.0 + 4.0 + 3.0) / 8.0), "count": 3 / 8}
    assert objective.seen == [["a", "b"], ["c"]]
    assert model.w.grad is None
