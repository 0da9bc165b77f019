"""Plots as inline SVG text: small pure functions, styled by the page's CSS classes.

Sizes are in the SVG's own units, of which the page shows about one a CSS pixel. Series take the
classes c0 to c6, whose colours the page sets for light and dark. Every text is escaped.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from services.telemetry.format import number
from services.telemetry.report.axes import Axis, axis

WIDTH, HEIGHT = 380, 230
_TOP, _BOTTOM = 12, 42
_MOST_DOTS = 40
"""Lines of more points carry no dots."""
_LONGEST_NAME = 20
_LETTER = 6.4
"""Width of an average letter of the 12 px labels."""


@dataclass(frozen=True, slots=True)
class Series:
    """One line; `colour` is a class number, 0 to 6."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    colour: int = 0
    faint: bool = False
    """Drawn behind, without a name: the raw values under an average."""


@dataclass(frozen=True, slots=True)
class Dot:
    """One mark of a dot plot."""

    value: float
    colour: int
    title: str
    hollow: bool = False
    low: float | None = None
    high: float | None = None
    """An interval around the value."""
    shift: float = 0.0
    """Down from the row's middle, so that equal values do not hide each other."""


@dataclass(frozen=True, slots=True)
class DotRow:
    """One line of a dot plot."""

    label: str
    dots: Sequence[Dot]
    below_rule: bool = False
    """One of the last rows, which a rule parts from the others."""


def line_plot(
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    whole_x: bool = True,
    zero: bool = False,
    limits: tuple[float, float] = (-math.inf, math.inf),
) -> str:
    """Lines with their names at their ends; one series alone needs no name."""
    named = [s for s in series if len(s.xs)]
    x = axis([v for s in named for v in s.xs], tick_count=6, whole=whole_x, tight=True)
    y = axis([v for s in named for v in s.ys], zero=zero, limits=limits)
    left = _left(y)
    clear = [s for s in named if not s.faint]
    names = [s.name for s in clear] if len(clear) > 1 else []
    right = 14 + max((len(_short(name)) * _LETTER for name in names), default=0)
    frame = _Frame(left, WIDTH - right, _TOP, HEIGHT - _BOTTOM, x, y)
    body = frame.grid(x_label, y_label)
    for one in named:
        body += _line(frame, one)
    if names:
        body += _end_labels(frame, clear)
    return _svg(HEIGHT, f"{y_label} by {x_label}", body)


def stacked_bars(
    labels: Sequence[str],
    layers: Sequence[tuple[str, Sequence[float], int]],
    x_label: str,
    y_label: str,
) -> str:
    """One bar a label; `layers` are name, one value a label, colour; the first lies lowest."""
    totals = [sum(values[i] for _, values, _ in layers) for i in range(len(labels))]
    y = axis([0.0, *totals], zero=True)
    x = Axis(0.5, len(labels) + 0.5, *_bar_ticks(labels))
    frame = _Frame(_left(y), WIDTH - 14, _TOP, HEIGHT - _BOTTOM, x, y)
    body = frame.grid(x_label, y_label)
    half = (frame.right - frame.left) / len(labels) * 0.36
    for index, label in enumerate(labels):
        middle, below = frame.x_of(index + 1), 0.0
        for name, values, colour in layers:
            value = values[index]
            if value <= 0:
                continue
            top, bottom = frame.y_of(below + value), frame.y_of(below)
            below += value
            title = _title(f"{x_label} {label}: {name} {number(value)}")
            body += (
                f'<rect class="f{colour}" x="{middle - half:.1f}" y="{top:.1f}" '
                f'width="{2 * half:.1f}" height="{max(0.5, bottom - top):.1f}">{title}</rect>'
            )
    return _svg(HEIGHT, f"{y_label} by {x_label}", body)


def horizontal_bars(rows: Sequence[tuple[str, float, str, int]], x_label: str) -> str:
    """Rows of label, value, the text at the bar's end, colour."""
    height = len(rows) * 24 + _TOP + _BOTTOM
    left = max(len(_short(label)) for label, *_ in rows) * _LETTER + 16
    right = max(len(text) for _, _, text, _ in rows) * _LETTER + 14
    x = axis([0.0, *(value for _, value, _, _ in rows)], zero=True, tight=True)
    y = Axis(0.0, float(len(rows)), (), ())
    frame = _Frame(left, WIDTH - right, _TOP, height - _BOTTOM, x, y)
    body = frame.grid(x_label, "")
    for index, (label, value, text, colour) in enumerate(rows):
        top = _TOP + index * 24 + 4
        width = max(1.0, frame.x_of(value) - left)
        body += (
            _text("t end", left - 8, top + 12, _short(label))
            + f'<rect class="f{colour}" x="{left:.1f}" y="{top}" width="{width:.1f}" height="16">'
            f"{_title(f'{label}: {text}')}</rect>" + _text("t", left + width + 6, top + 12, text)
        )
    return _svg(height, x_label, body)


def dot_plot(
    rows: Sequence[DotRow],
    x_label: str,
    zero: bool = True,
    limits: tuple[float, float] = (-math.inf, math.inf),
) -> str:
    """One line a row with its marks; a rule parts the last ones (`below_rule`)."""
    height = len(rows) * 26 + _TOP + _BOTTOM
    left = max(len(_short(row.label)) for row in rows) * _LETTER + 16
    values = [
        v for row in rows for d in row.dots for v in (d.value, d.low, d.high) if v is not None
    ]
    x = axis(values, zero=zero, limits=limits)
    y = Axis(0.0, float(len(rows)), (), ())
    frame = _Frame(left, WIDTH - 16, _TOP, height - _BOTTOM, x, y)
    body = frame.grid(x_label, "")
    ruled = False
    for index, row in enumerate(rows):
        middle = _TOP + index * 26 + 13
        if row.below_rule and not ruled and index:
            body += f'<path class="rule" d="M4 {middle - 13}H{WIDTH - 16}"/>'
        ruled = row.below_rule
        style = "t end outside" if row.below_rule else "t end"
        body += f'<path class="grid" d="M{left:.1f} {middle}H{frame.right:.1f}"/>' + _text(
            style, left - 8, middle + 4, row.label
        )
        body += "".join(_dot(frame, dot, middle) for dot in row.dots)
    return _svg(height, x_label, body)


@dataclass(frozen=True, slots=True)
class _Frame:
    """The rectangle inside the axes."""

    left: float
    right: float
    top: float
    bottom: float
    x: Axis
    y: Axis

    def x_of(self, value: float) -> float:
        return self.left + self.x.place(value) * (self.right - self.left)

    def y_of(self, value: float) -> float:
        return self.bottom - self.y.place(value) * (self.bottom - self.top)

    def grid(self, x_label: str, y_label: str) -> str:
        """Rules at the y ticks, ticks and labels of both axes."""
        left, right, bottom = f"{self.left:.1f}", f"{self.right:.1f}", f"{self.bottom:.1f}"
        parts = [f'<path class="axis" d="M{left} {bottom}H{right}"/>']
        for tick, label in zip(self.y.ticks, self.y.labels, strict=True):
            at = self.y_of(tick)
            style = "zero" if tick == 0 else "grid"
            parts.append(f'<path class="{style}" d="M{left} {at:.1f}H{right}"/>')
            parts.append(_text("t end", self.left - 6, at + 4, label))
        for tick, label in zip(self.x.ticks, self.x.labels, strict=True):
            at = self.x_of(tick)
            parts.append(f'<path class="tick" d="M{at:.1f} {bottom}v4"/>')
            parts.append(_text("t mid", at, self.bottom + 17, label))
        middle, high = (self.left + self.right) / 2, (self.top + self.bottom) / 2
        parts.append(_text("l mid", middle, self.bottom + 35, x_label))
        if y_label:
            parts.append(f'<g transform="rotate(-90 12 {high:.1f})">')
            parts.append(_text("l mid", 12, high, y_label) + "</g>")
        return "".join(parts)


def _left(y: Axis) -> float:
    return 28 + max((len(label) for label in y.labels), default=1) * _LETTER


def _line(frame: _Frame, series: Series) -> str:
    places = [(frame.x_of(x), frame.y_of(y)) for x, y in zip(series.xs, series.ys, strict=True)]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    if series.faint:
        return f'<path class="line faint s{series.colour}" d="{path}"/>'
    body = f'<path class="line s{series.colour}" d="{path}"/>'
    every = max(1, math.ceil(len(places) / 60))
    dots = len(places) <= _MOST_DOTS
    for index in range(0, len(places), every):
        (px, py), x, y = places[index], series.xs[index], series.ys[index]
        if dots:
            body += f'<circle class="f{series.colour}" cx="{px:.1f}" cy="{py:.1f}" r="2.8"/>'
        title = _title(f"{series.name}, {number(x) if x % 1 else int(x)}: {number(y)}")
        body += f'<circle class="hit" cx="{px:.1f}" cy="{py:.1f}" r="9">{title}</circle>'
    return body


def _end_labels(frame: _Frame, series: Sequence[Series]) -> str:
    """Each line's name beside its end, pushed apart so that none covers another."""
    ends = sorted((frame.y_of(s.ys[-1]), s.name, s.colour) for s in series)
    places = [y for y, _, _ in ends]
    for index in range(1, len(places)):
        places[index] = max(places[index], places[index - 1] + 14)
    over = max(0.0, places[-1] - frame.bottom)
    for index in range(len(places) - 1, -1, -1):
        limit = frame.bottom if index == len(places) - 1 else places[index + 1] - 14
        places[index] = min(places[index], limit) if over else places[index]
    return "".join(
        _text(f"t t{colour}", frame.right + 7, at + 4, _short(name))
        for at, (_, name, colour) in zip(places, ends, strict=True)
    )


def _dot(frame: _Frame, dot: Dot, middle: float) -> str:
    body = ""
    middle += dot.shift
    if dot.low is not None and dot.high is not None:
        low, high = frame.x_of(dot.low), frame.x_of(dot.high)
        body = f'<path class="line thin s{dot.colour}" d="M{low:.1f} {middle:.1f}H{high:.1f}"/>'
    style = f"hollow s{dot.colour}" if dot.hollow else f"f{dot.colour}"
    return body + (
        f'<circle class="{style}" cx="{frame.x_of(dot.value):.1f}" cy="{middle:.1f}" r="4.5">'
        f"{_title(dot.title)}</circle>"
    )


def _bar_ticks(labels: Sequence[str]) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """Every label where they fit, else every so many."""
    every = max(1, math.ceil(len(labels) / 12))
    places = range(0, len(labels), every)
    return tuple(float(i + 1) for i in places), tuple(labels[i] for i in places)


def _short(name: str) -> str:
    """Cut in the middle: both ends of a name tell it from its neighbours."""
    if len(name) <= _LONGEST_NAME:
        return name
    half = _LONGEST_NAME // 2
    return f"{name[: half - 1]}…{name[-half:]}"


def _text(style: str, x: float, y: float, text: str) -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _title(text: str) -> str:
    return f"<title>{escape(text)}</title>"


def _svg(height: int, label: str, body: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label, quote=True)}">'
        f"{body}</svg>"
    )
