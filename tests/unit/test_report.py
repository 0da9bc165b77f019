"""The report page: whole, escaped, self-contained; and the plots it is made of."""

import itertools
import random
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.telemetry.record.events import PairExample, StageFinished, StageStarted, StageWaiting
from services.telemetry.record.reduce import apply
from services.telemetry.record.state import Point, RunState, Stage
from services.telemetry.report.axes import axis
from services.telemetry.report.figures import curve, training_figures
from services.telemetry.report.online_figures import online_figures
from services.telemetry.report.plots import Dot, DotRow, Series, dot_plot, line_plot, stacked_bars
from services.telemetry.report.report import render_report, write_report
from services.telemetry.report.shown_pairs import differences, shown_episodes
from tests.sample_events import EXTRA_CONFIG, run_events, training_events


@pytest.fixture(scope="module")
def whole() -> RunState:
    state = RunState()
    for second, event in enumerate(run_events()):
        apply(state, event, 1000.0 + second)
    return state


class Page(HTMLParser):
    """Collects tags, ids and links, and that every tag is closed in turn."""

    _VOID = ("meta", "br", "link", "img", "hr")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.open += [] if tag in self._VOID else [tag]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_report_is_one_whole_page_without_outside_resources(
    whole: RunState, tmp_path: Path
) -> None:
    path = write_report(tmp_path, whole, {"name": "demo", "config": EXTRA_CONFIG})
    page = Page(path.read_text())
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert page.open == []
    assert "script" not in page.tags
    assert page.links
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert not re.search(r"url\(|@import", path.read_text())


def test_the_report_holds_what_the_run_showed(whole: RunState) -> None:
    text = render_report(whole, {"name": "demo", "seed": 7, "versions": {"torch": "2.13.0"}})
    for needed in (
        "online_dpo gained sampled accuracy 0.41 to 0.49",
        "seed 7",
        "<b>Reward by part</b>",
        "<b>KL to the reference</b>",
        "<b>Length gap</b>",
        "<b>Pairs and drops</b>",
        "<b>Values changed by a version</b>",
        "<b>Canary difference</b>",
        "<b>offline_dpo: accuracy</b>",
        "<b>Time by stage</b>",
        "Warning: pretrain: grad_norm 14.2 clipped to 1.0",
        "2.13.0",
    ):
        assert needed in text


def test_texts_of_models_are_escaped_everywhere(whole: RunState) -> None:
    evil = '<img src=x onerror="alert(1)">&'
    state = RunState()
    apply(state, StageStarted(stage=evil, job="online_dpo", index=1, total=1), 1.0)
    for event in training_events(random.Random(0), evil, 20):
        apply(state, event)
    pair = PairExample(
        stage=evil,
        episode=1,
        prompt=evil,
        chosen=evil,
        rejected=evil + " b",
        chosen_score=1.0,
        rejected_score=0.0,
        parts={evil: (1.0, 0.0)},
        metadata={evil: evil},
    )
    apply(state, pair)
    done = StageFinished(stage=evil, job="online_dpo", seconds=1.0, reused=False, folder=evil)
    apply(state, done)
    text = render_report(state, {"name": evil, "config": evil, "versions": {evil: evil}})
    assert "<img" not in text
    assert text.count("&lt;img") >= 10


def test_passwords_in_the_config_and_the_error_are_hidden(whole: RunState) -> None:
    extra_error = "cannot reach redis://user:secret@host:6379/0"
    text = render_report(whole, {"config": EXTRA_CONFIG, "error": extra_error})
    assert "secret" not in text
    assert text.count("redis://user:***@host:6379/0") == 2


def test_a_run_of_sft_alone_gets_a_short_report_without_empty_plots() -> None:
    state = RunState()
    apply(state, StageStarted(stage="sft", job="sft", index=1, total=1), 1.0)
    for event in training_events(random.Random(0), "sft", 50):
        apply(state, event, 2.0)
    text = render_report(state, {"name": "sft"})
    assert text.count("<svg") == 1
    assert "sft: training loss" in text
    for absent in ("Online loop", "Pairs to read", 'id="accuracy"', 'id="config"'):
        assert absent not in text


def test_a_run_that_only_reused_does_not_say_how_long_it_took() -> None:
    state = RunState()
    for reused in (True, False):
        name = f"stage-{reused}"
        apply(state, StageStarted(stage=name, job="sft", index=1, total=1, reused=reused), 1.0)
        apply(
            state,
            StageFinished(stage=name, job="sft", seconds=5.0, reused=reused, folder="f"),
            2.0,
        )
        page = render_report(state, {})
        assert ("every stage reused" in page, "took 1.0 s" in page) == (reused, not reused)


def test_a_report_of_nothing_says_so() -> None:
    text = render_report(RunState(), {"error": "config.yaml:3 is wrong"})
    assert "No stage has begun." in text
    assert "config.yaml:3 is wrong" in text
    assert "<svg" not in text


def test_one_finished_episode_is_enough(whole: RunState) -> None:
    stage = whole.stages["online_dpo"]
    kept = {number: e for number, e in stage.episodes.items() if number == 1}
    first = type(stage)("online_dpo", episodes=kept)
    figures = online_figures(first)
    assert "Reward" in [figure.title for figure in figures]
    for figure in figures:
        ET.fromstring(figure.svg)  # noqa: S314 (our own text)


def test_a_run_that_failed_before_publishing_leaves_the_old_report_whole(
    whole: RunState, tmp_path: Path
) -> None:
    (tmp_path / "report.html").write_text("old")
    with pytest.raises(AttributeError):
        write_report(tmp_path, None, {})  # type: ignore[arg-type]
    assert (tmp_path / "report.html").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


@given(
    st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=20),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_an_axis_holds_its_values_and_has_few_ticks(
    values: list[float], whole_x: bool, zero: bool, tight: bool
) -> None:
    made = axis(values, whole=whole_x, zero=zero, tight=tight)
    slack = 1e-6 * (made.high - made.low)
    assert made.low < made.high
    assert made.low - slack <= min(values)
    assert made.high + slack >= max(values)
    assert 0 <= len(made.ticks) <= 9
    assert len(made.ticks) == len(made.labels)


def test_ticks_read_as_people_write_them() -> None:
    assert axis([0.0, 0.93], limits=(0.0, 1.0)).labels == ("0", "0.2", "0.4", "0.6", "0.8", "1.0")
    assert axis([0.0, 1.9e-6]).labels == ("0", "5e-7", "1.0e-6", "1.5e-6", "2.0e-6")
    assert axis([1.0, 10.0], whole=True, tight=True).labels == ("2", "4", "6", "8", "10")
    assert axis([0.0, 48_000.0]).labels[-1] == "50k"


def test_a_line_plot_places_its_values() -> None:
    svg = line_plot([Series("loss", [0.0, 10.0], [0.0, 1.0])], "step", "nats", limits=(0.0, 1.0))
    ET.fromstring(svg)  # noqa: S314 (our own text)
    path = re.search(r'class="line s0" d="M([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)"', svg)
    assert path is not None
    x0, y0, x1, y1 = map(float, path.groups())
    assert x0 < x1
    assert (y0, y1) == (188.0, 12.0), "0 at the bottom, 1 at the top"
    assert "<title>loss, 10: 1.00</title>" in svg


def test_labels_at_line_ends_never_overlap() -> None:
    svg = line_plot(
        [Series(f"part {i}", [1.0, 2.0], [0.5, 0.001 * i], i) for i in range(6)],
        "episode",
        "reward",
    )
    heights = sorted(float(y) for y in re.findall(r'class="t t\d" x="[\d.]+" y="([\d.]+)"', svg))
    assert len(heights) == 6
    assert min(b - a for a, b in itertools.pairwise(heights)) >= 13.9
    assert max(heights) <= 192.1


def test_stacked_bars_add_up_to_the_axis() -> None:
    svg = stacked_bars(["1"], [("pairs", [60.0], 0), ("dropped", [40.0], 1)], "episode", "prompts")
    heights = [float(h) for h in re.findall(r'height="([\d.]+)"', svg)]
    assert heights[0] / heights[1] == pytest.approx(1.5, rel=0.01)


def test_a_dot_plot_rules_off_the_last_rows() -> None:
    rows = [
        DotRow("add", [Dot(0.5, 0, "t")]),
        DotRow("dates *", [Dot(0.2, 0, "t")], below_rule=True),
    ]
    assert dot_plot(rows, "share", limits=(0.0, 1.0)).count('class="rule"') == 1


def test_differences_mark_what_the_other_answer_lacks() -> None:
    chosen, rejected = differences("the sum is 12.", "the sum is 13, I think.")
    assert [text for other, text in chosen if other] == ["12"]
    assert [text for other, text in rejected if other] == ["13, I think"]
    assert "".join(text for _, text in rejected) == "the sum is 13, I think."


def test_many_episodes_of_pairs_are_thinned_with_both_ends(whole: RunState) -> None:
    stage = type(whole.stages["online_dpo"])("online_dpo")
    one = next(iter(whole.stages["online_dpo"].examples[1].values()))
    stage.examples = {n: {f"p{i}": one for i in range(9)} for n in range(1, 101)}
    shown = shown_episodes(stage)
    assert len(shown) == 12
    assert (shown[0].number, shown[-1].number) == (1, 100)
    assert [e.number for e in shown if e.open] == [1, 100]
    assert (len(shown[0].pairs), shown[0].more) == (4, 5)


def test_long_curves_are_averaged_down() -> None:
    points = [Point(0, s, 3000, 0, 0.0, {"loss": float(s)}) for s in range(1, 3001)]
    xs, ys = curve(points, "loss")
    assert len(xs) == 300
    assert (xs[0], ys[0], xs[-1]) == (10, 5.5, 3000)


def test_the_mean_of_a_long_curve_does_not_end_in_its_last_noisy_value() -> None:
    values = [0.0] * 99 + [1.0]
    points = [Point(0, i, 100, 0, 0.0, {"loss": v}) for i, v in enumerate(values, start=1)]
    (figure,) = training_figures(Stage("sft", curve=points))
    titles = re.findall(r"<title>mean loss, (\d+): ([\d.]+)</title>", figure.svg)
    assert titles[0] == ("1", "0")
    assert titles[-1] == ("99", "0.333")


def test_steps_of_each_episode_are_laid_one_after_the_other() -> None:
    points = [Point(e, s, 2, 0, 0.0, {"loss": 1.0}) for e in (1, 2) for s in (1, 2)]
    assert curve(points, "loss")[0] == [1, 2, 3, 4]


def test_training_figures_of_a_dpo_stage(whole: RunState) -> None:
    titles = [figure.title for figure in training_figures(whole.stages["offline_dpo"])]
    assert titles == [
        "offline_dpo: training loss",
        "offline_dpo: accuracy",
        "offline_dpo: margin of the implicit reward",
        "offline_dpo: KL to the reference",
    ]


def test_best_and_worst_of_a_group_are_not_taken_for_reward_parts(whole: RunState) -> None:
    figures = {figure.title: figure.svg for figure in online_figures(whole.stages["online_dpo"])}
    assert list(figures)[:2] == ["Reward", "Reward by part"]
    assert ">best</text>" in figures["Reward"]
    named = re.findall(r'class="t t\d"[^>]*>([^<]+)<', figures["Reward by part"])
    assert sorted(named) == ["checker", "missing_eos", "model"]


def test_metrics_of_a_stage_are_told_under_the_table(whole: RunState) -> None:
    text = render_report(whole, {})
    assert "<span>pairs 1,711</span>" in text
    assert "<span>reward_mean 0.213</span>" in text


def test_an_answer_too_long_to_read_is_cut_and_says_so(whole: RunState) -> None:
    example = next(iter(whole.stages["online_dpo"].examples[1].values()))
    long = example.model_copy(update={"chosen": "a" * 3500, "rejected": ""})
    stage = Stage("online_dpo", examples={1: {"p": long}})
    (episode,) = shown_episodes(stage)
    assert "".join(text for _, text in episode.pairs[0].chosen) == (
        "a" * 3000 + "… (500 more characters)"
    )
    assert episode.pairs[0].rejected == []


def test_a_layer_without_values_has_no_bar() -> None:
    svg = stacked_bars(["1", "2"], [("pairs", [3.0, 0.0], 0)], "episode", "prompts")
    assert svg.count("<rect") == 1


def test_a_stage_that_waits_says_so_at_the_top_of_the_page() -> None:
    state = RunState()
    apply(state, StageStarted(stage="labels", job="annotate", index=1, total=2))
    apply(state, StageWaiting(stage="labels", reason="12 of 200 <pairs>"))
    text = render_report(state, {})
    assert "<p>labels is waiting.</p><p>12 of 200 &lt;pairs&gt;</p>" in text
    assert "<td>waiting</td>" in text


def test_evaluations_stand_with_their_policy_and_share_one_row_of_time(whole: RunState) -> None:
    text = render_report(whole, {})
    assert "sft-evaluation" not in text
    assert re.search(r"<td>sft</td>\s*<td>1:04</td>\s*<td>0.310</td>\s*<td>0.400</td>", text)
    assert re.search(r"<td>evaluations \(4\)</td>\s*<td>48 s</td>", text)
