"""The report's plots of evaluations, training and time. A plot without data is left out."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.telemetry.format import share
from services.telemetry.record.changes import interval
from services.telemetry.record.stage_rows import stage_rows
from services.telemetry.record.state import Point, RunState, Stage, skill_names
from services.telemetry.report.plots import (
    Dot,
    DotRow,
    Series,
    dot_plot,
    horizontal_bars,
    line_plot,
)

_CURVE_POINTS = 300
COLOURS = 7
"""Classes the page has colours for."""
_REUSED_COLOUR = 5


@dataclass(frozen=True, slots=True)
class Figure:
    """A plot with its words; `legend` is (colour class, name, hollow)."""

    title: str
    svg: str
    note: str = ""
    legend: tuple[tuple[int, str, bool], ...] = ()


def evaluation_figures(state: RunState) -> list[Figure]:
    """Accuracy by stage and by skill, and the held-out loss."""
    stages = state.evaluated()
    measured = [s for s in stages if s.evaluation and s.evaluation.sampled is not None]
    figures = []
    if measured:
        figures.append(
            Figure(
                "Accuracy by stage",
                dot_plot(
                    [_accuracy_row(s) for s in measured],
                    "share of right answers",
                    limits=(0.0, 1.0),
                ),
                "Lines are 95 % intervals that take answers as independent.",
                ((0, "sampled", False), (1, "greedy", True)),
            )
        )
    with_skills = [s for s in measured if s.evaluation and s.evaluation.skills]
    if with_skills:
        figures.append(_skills(with_skills))
    losses = [(s, s.evaluation.lm_loss) for s in stages if s.evaluation]
    rows = [
        DotRow(s.name, [Dot(loss, 0, f"{s.name}: {loss:.4f}")])
        for s, loss in losses
        if loss is not None
    ]
    if len(rows) > 1:
        figures.append(
            Figure(
                "Held-out language-model loss",
                dot_plot(rows, "nats a token", zero=False),
                "Lower is better; the axis does not start at 0.",
            )
        )
    return figures


def training_figures(stage: Stage) -> list[Figure]:
    """The curves of one stage."""
    figures = []
    wanted = (
        ("loss", "training loss", "nats"),
        ("accuracy", "accuracy", "share"),
        ("margin", "margin of the reward", "reward difference"),
        ("dpo_margin", "margin of the implicit reward", "nats times beta"),
        ("kl", "KL to the reference", "nats"),
    )
    for key, title, unit in wanted:
        if stage.episodes and key != "loss":
            continue
        xs, ys = curve(stage.curve, key)
        if len(xs) > 1:
            svg = line_plot(_with_average(key, xs, ys), "step", unit)
            figures.append(Figure(f"{stage.name}: {title}", svg))
    return figures


def time_figure(state: RunState) -> Figure | None:
    """Seconds a stage."""
    rows = [
        (row.name, row.seconds, row.time, _REUSED_COLOUR if row.reused else 0)
        for row in stage_rows(state)
        if row.seconds is not None
    ]
    if not rows:
        return None
    unit, scale = ("minutes", 60.0) if max(row[1] for row in rows) > 180 else ("seconds", 1.0)
    scaled = [(name, seconds / scale, text, colour) for name, seconds, text, colour in rows]
    return Figure("Time by stage", horizontal_bars(scaled, unit))


def curve(points: Sequence[Point], key: str) -> tuple[list[float], list[float]]:
    """Step and value of one metric, averaged down to a few hundred points."""
    xs, ys = laid_out(points, key)
    every = -(-len(xs) // _CURVE_POINTS)
    if every <= 1:
        return xs, ys
    cut = range(0, len(xs), every)
    return [xs[i : i + every][-1] for i in cut], [_mean(ys[i : i + every]) for i in cut]


def laid_out(points: Sequence[Point], key: str) -> tuple[list[float], list[float]]:
    """Step and value of one metric; steps that start again at 1 in each episode are laid one after
    the other.
    """
    xs: list[float] = []
    ys: list[float] = []
    offset = before = 0
    for point in points:
        if point.step < before:
            offset += before
        before = point.step
        if key in point.metrics:
            xs.append(offset + point.step)
            ys.append(point.metrics[key])
    return xs, ys


def _with_average(name: str, xs: list[float], ys: list[float]) -> list[Series]:
    """A long curve as its running mean, over the raw values drawn faintly.

    Towards the ends the window narrows, so that the mean stays in its middle, but not to the
    single noisy value at the very end.
    """
    window = len(ys) // 20
    if window < 3:
        return [Series(name, xs, ys)]
    means = []
    for i in range(len(ys)):
        reach = max(window // 3, min(window, i, len(ys) - 1 - i))
        means.append(_mean(ys[max(0, i - reach) : i + reach + 1]))
    return [Series(name, xs, ys, faint=True), Series(f"mean {name}", xs, means)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _accuracy_row(stage: Stage) -> DotRow:
    of = stage.evaluation
    dots = []
    if of is not None and of.greedy is not None:
        dots.append(_share_dot(f"{stage.name}, greedy", of.greedy, of.greedy_n, 1, hollow=True))
    if of is not None and of.sampled is not None:
        dots.append(_share_dot(f"{stage.name}, sampled", of.sampled, of.sampled_n, 0))
    return DotRow(stage.name, dots)


def _share_dot(name: str, value: float, n: int, colour: int, hollow: bool = False) -> Dot:
    low, high = interval(value, n)
    title = f"{name}: {share(value)} of {n} answers (95 %: {low:.3f} to {high:.3f})"
    return Dot(value, colour, title, hollow, low, high, shift=4.0 if hollow else -4.0)


def _skills(stages: list[Stage]) -> Figure:
    rows = []
    for name, in_preferences in skill_names(stages):
        dots = []
        for index, stage in enumerate(stages):
            skill = stage.evaluation.skills.get(name) if stage.evaluation else None
            if skill is not None:
                title = f"{name}, {stage.name}: {share(skill.sampled)} of {skill.sampled_n} answers"
                shift = (index - (len(stages) - 1) / 2) * 12 / len(stages)
                dots.append(Dot(skill.sampled, index % COLOURS, title, shift=shift))
        label = name if in_preferences else f"{name} *"
        rows.append(DotRow(label, dots, below_rule=not in_preferences))
    note = "* not in the preference data." if any(row.below_rule for row in rows) else ""
    legend = tuple((i % COLOURS, stage.name, False) for i, stage in enumerate(stages))
    svg = dot_plot(rows, "share of right sampled answers", limits=(0.0, 1.0))
    return Figure("Sampled accuracy by skill", svg, note, legend)
