"""The report's plots of an online loop, episode by episode and version by version."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.telemetry.format import reason_name
from services.telemetry.record.state import Episode, Stage
from services.telemetry.report.figures import COLOURS, Figure
from services.telemetry.report.plots import Series, line_plot, stacked_bars


@dataclass(frozen=True, slots=True)
class EpisodePlot:
    """Lines over the episodes: `lines` are (metric, name)."""

    title: str
    unit: str
    lines: tuple[tuple[str, str], ...]
    note: str = ""
    zero: bool = False


_OF_THE_GROUP = {"reward_mean", "reward_max", "reward_min"}

_EPISODE_PLOTS = (
    EpisodePlot(
        "Reward",
        "reward",
        (("reward_mean", "mean"), ("reward_max", "best"), ("reward_min", "worst")),
        "Of a group's samples; mean over groups.",
    ),
    EpisodePlot(
        "KL to the reference",
        "nats an answer",
        (("kl", "KL"),),
        "Estimated on the pairs, before the episode's update.",
        zero=True,
    ),
    EpisodePlot(
        "Margin of the pairs",
        "reward",
        (("margin", "margin"),),
        "Score of chosen minus score of rejected.",
        zero=True,
    ),
    EpisodePlot(
        "Length gap",
        "tokens",
        (("length_gap", "gap"),),
        "Chosen minus rejected. A gap that grows is a sign of reward for length.",
        zero=True,
    ),
    EpisodePlot("Answer length", "tokens", (("answer_tokens", "answer"),)),
    EpisodePlot(
        "Answers cut short",
        "share",
        (("truncated", "cut"),),
        "At the most tokens an answer may have.",
        zero=True,
    ),
    EpisodePlot("Different answers", "answers a group", (("unique_answers", "unique"),), zero=True),
    EpisodePlot("DPO loss", "nats a pair", (("loss", "loss"),)),
    EpisodePlot(
        "DPO accuracy",
        "share of pairs",
        (("accuracy", "accuracy"),),
        "Pairs whose implicit reward orders them as the reward does.",
    ),
    EpisodePlot(
        "Implicit reward",
        "nats times beta",
        (("chosen_reward", "chosen"), ("rejected_reward", "rejected")),
        "Both falling: the policy moves away from chosen answers too.",
    ),
    EpisodePlot(
        "Samplers against learner",
        "nats",
        (("sampler_gap", "largest"), ("sampler_gap_mean", "mean")),
        "Difference of a token's log-probability.",
        zero=True,
    ),
    EpisodePlot(
        "Time of an episode",
        "seconds",
        (("sample_seconds", "sample"), ("train_seconds", "train"), ("sync_seconds", "sync")),
        zero=True,
    ),
)


def online_figures(stage: Stage) -> list[Figure]:
    """The online loop, episode by episode."""
    done = stage.finished_episodes()
    figures: list[Figure] = []
    for plot in _EPISODE_PLOTS:
        _add(figures, done, plot)
    parts = {k for e in done for k in e.metrics if k.startswith("reward_")} - _OF_THE_GROUP
    if parts:
        lines = tuple((key, key.removeprefix("reward_")) for key in sorted(parts))
        _add(figures, done, EpisodePlot("Reward by part", "part, unweighted", lines), at=1)
    if done:
        figures.append(_pairs(done))
    return figures + _weights(stage)


def _add(
    figures: list[Figure], episodes: list[Episode], plot: EpisodePlot, at: int | None = None
) -> None:
    """Add the plot, at a place or at the end, where there is anything to show."""
    series = []
    for colour, (key, name) in enumerate(plot.lines):
        points = [(float(e.number), e.metrics[key]) for e in episodes if key in e.metrics]
        if points:
            xs, ys = [x for x, _ in points], [y for _, y in points]
            series.append(Series(name, xs, ys, colour % COLOURS))
    if series:
        svg = line_plot(series, "episode", plot.unit, zero=plot.zero)
        place = len(figures) if at is None else at
        figures.insert(place, Figure(plot.title, svg, plot.note))


def _pairs(done: list[Episode]) -> Figure:
    names = sorted({name for e in done for name, n in e.dropped.items() if n})
    layers: list[tuple[str, Sequence[float], int]] = [("pairs", [e.paired for e in done], 0)]
    for index, name in enumerate(names):
        dropped = [float(e.dropped.get(name, 0)) for e in done]
        layers.append((f"dropped: {reason_name(name)}", dropped, 1 + index % (COLOURS - 1)))
    svg = stacked_bars([str(e.number) for e in done], layers, "episode", "prompts")
    legend = tuple((colour, name, False) for name, _, colour in layers)
    return Figure("Pairs and drops", svg, "Groups that gave no pair, by reason.", legend)


def _weights(stage: Stage) -> list[Figure]:
    versions = [weights for _, weights in sorted(stage.weights.items())]
    figures = []

    def plot(title: str, unit: str, points: list[tuple[int, float]], note: str) -> None:
        if points:
            xs, ys = [float(x) for x, _ in points], [y for _, y in points]
            svg = line_plot([Series(title, xs, ys)], "weight version", unit, zero=True)
            figures.append(Figure(title, svg, note))

    changed = [(w.version, w.changed_values / w.total_values) for w in versions if w.total_values]
    plot(
        "Values changed by a version",
        "share",
        [c for c in changed if c[1]],
        "One OMO step moves about its reserve rate of all values; a version holds several.",
    )
    plot(
        "Weight sync",
        "seconds",
        [(w.version, w.seconds) for w in versions],
        "Until every worker attested.",
    )
    plot(
        "Canary difference",
        "nats",
        [(w.version, w.max_canary_difference) for w in versions],
        "Largest difference of a log-probability between a worker and the learner.",
    )
    return figures
