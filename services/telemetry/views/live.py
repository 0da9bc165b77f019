"""The run on a terminal: stages, progress, the online loop, the last notes."""

import sys
import textwrap
import threading
import time
from collections.abc import Callable
from typing import IO

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from services.states import State
from services.telemetry.format import duration, number, sparkline
from services.telemetry.log.lines import LogFormat
from services.telemetry.record.events import Event
from services.telemetry.record.state import RunState
from services.telemetry.views.json_lines import JsonView
from services.telemetry.views.plain import PlainView
from services.telemetry.views.screen import (
    EpisodeLine,
    LoopLines,
    ProgressBar,
    Screen,
    StageLine,
    screen,
)

_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_FRAMES_PER_SECOND = 4

Row = tuple[int, Text]
"""How soon a line gives way when the terminal is low (0: last), and the line."""


class LiveView:
    """Draws about four times a second in a thread, so that a busy run never looks hung."""

    def __init__(
        self,
        console: Console | None = None,
        name: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._console = console if console is not None else Console()
        self._drawing = Drawing(name, clock)
        self._live = Live(
            self._drawing,
            console=self._console,
            refresh_per_second=_FRAMES_PER_SECOND,
            vertical_overflow="crop",
        )

    def start(self) -> None:
        """Take the terminal's lower end; what is printed meanwhile scrolls above."""
        self._live.start(refresh=True)

    def handle(self, event: Event, state: RunState) -> None:
        """Keep what the next frame shows."""
        self._drawing.show(screen(state))

    def stop(self) -> None:
        """Draw the last frame and leave it there."""
        self._drawing.end()
        self._live.stop()


def view_for(
    stream: IO[str] | None = None, name: str = "", shown: LogFormat = "text"
) -> "LiveView | PlainView | JsonView":
    """The live view on a terminal, the plain one elsewhere; JSON lines where they are wanted."""
    if shown == "json":
        return JsonView(stream, name)
    console = Console(file=stream if stream is not None else sys.stdout)
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveView(console, name)
    return PlainView(stream)


class Drawing:
    """The current screen, as rich draws it: one line a row, cut to the width."""

    def __init__(self, name: str, clock: Callable[[], float]) -> None:
        self._name = name
        self._clock = clock
        self._lock = threading.Lock()
        self._screen = Screen(at=0.0, worked=0.0)
        self._ended = False

    def show(self, shown: Screen) -> None:
        """From now on."""
        with self._lock:
            self._screen = shown

    def end(self) -> None:
        """Nothing runs any more: the last frame shows no spinner."""
        with self._lock:
            self._ended = True

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The lines that fit."""
        with self._lock:
            shown, ended = self._screen, self._ended
        height = (options.height or console.height) - 1
        now = shown.at if ended else self._clock()
        rows = draw(shown, now, options.max_width, self._name, ended)
        for line in fit(rows, height):
            shown_line = Text(_ascii(line.plain)) if options.ascii_only else line
            shown_line.no_wrap = True
            shown_line.overflow = "crop" if options.ascii_only else "ellipsis"
            yield shown_line


def draw(shown: Screen, now: float, width: int, name: str, ended: bool = False) -> list[Row]:
    """Every line of the screen at this moment."""
    rows = [_header(shown, now, name, ended)]
    rows += [_stage(line, _since(shown, now), now, ended) for line in shown.stages]
    if not ended and all(line.status not in ("running", "waiting") for line in shown.stages):
        what = "between stages" if shown.stages else "starting"
        rows.append((1, Text.assemble((f" {_spin(now)} ", "cyan"), (what, "dim"))))
    if shown.stages_to_come:
        more = f" · {shown.stages_to_come} more stage{'s' if shown.stages_to_come > 1 else ''}"
        rows.append((4, Text(more, "dim")))
    if shown.progress is not None:
        left = _countdown(shown.progress.left, shown, now)
        rows += [(5, Text()), *_progress(shown.progress, left, width)]
    if shown.loop is not None:
        rows += [(5, Text()), *_loop(shown.loop, now, width)]
    if shown.notes:
        rows.append((5, Text()))
        rows += [(3, line) for note in shown.notes for line in _note(*note, width)]
    return rows


def fit(rows: list[Row], height: int) -> list[Text]:
    """At most `height` lines: blank ones go first, then old ones of the least need."""
    kept = list(rows)
    while len(kept) > max(1, height):
        first = max(range(len(kept)), key=lambda index: (kept[index][0], -index))
        del kept[first]
    return [line for _, line in kept]


def _header(shown: Screen, now: float, name: str, ended: bool) -> Row:
    elapsed = shown.worked + _since(shown, now)
    left = "" if ended else f", {duration(_countdown(shown.left, shown, now))} left"
    line = Text.assemble(("Pairloop", "bold"), f" {name}" if name else "")
    line.append(f"   {duration(elapsed)} elapsed{left}", "dim")
    return 0, line


def _since(shown: Screen, now: float) -> float:
    """Seconds of work since the last event."""
    return max(0.0, now - shown.at) if shown.at and not shown.held else 0.0


def _countdown(left: float | None, shown: Screen, now: float) -> float | None:
    """What is left by now; unknown again once the estimate has proved too short."""
    if left is None:
        return None
    by_now = left - max(0.0, now - shown.at)
    return by_now if by_now > 0 else None


def _stage(line: StageLine, since: float, now: float, ended: bool) -> Row:
    running = line.status == "running"
    spinner = ("■", "yellow") if ended else (_spin(now), "cyan")
    signs = {
        "finished": ("✓", "green"),
        "running": spinner,
        "waiting": ("○", "yellow"),
        "unfinished": ("·", "dim"),
    }
    sign, style = signs[line.status]
    took = line.worked + since if running else line.seconds
    text = Text.assemble((f" {sign} ", style), (f"{line.name:<14}", "bold" if running else ""))
    text.append(f"{duration(took):>9}  ", "dim")
    if line.reused:
        text.append("reused  ", "blue")
    if line.status == "waiting":
        text.append("waiting  ", "yellow")
    if line.held:
        text.append("PAUSED", "bold black on yellow")
        text.append("  ")
    text.append(line.result)
    return 1 if line.status in ("running", "waiting") else 4, text


def _progress(progress: ProgressBar, left: float | None, width: int) -> list[Row]:
    tail = f" {progress.done:4.0%}  {duration(left)} left"
    label = f" {progress.stage}  "
    cells = max(4, min(48, width - len(label) - len(tail) - 1))
    full = round(min(1.0, max(0.0, progress.done)) * cells)
    bar = Text.assemble((label, "bold"), ("━" * full, "cyan"), ("─" * (cells - full), "dim"), tail)
    return [(1, bar), (2, Text(f" {progress.facts}"))]


def _loop(loop: LoopLines, now: float, width: int) -> list[Row]:
    rows: list[Row] = []
    for episode in loop.episodes[:3]:
        rows += _episode(episode, now, width)
    if loop.rewards:
        text = Text(f" reward   {number(loop.rewards[-1])}  ")
        text.append(sparkline(loop.rewards), "green")
        text.append(f"  from {number(loop.rewards[0])} in episode 1", "dim")
        rows.append((2, text))
    if loop.pairs:
        rows.append((3, Text(f" pairs    {loop.pairs}")))
    if loop.policy:
        rows.append((3, Text(f" policy   {loop.policy}")))
    return rows


def _episode(episode: EpisodeLine, now: float, width: int) -> list[Row]:
    head = f" episode {episode.number}/{episode.total} "
    since = duration(now - episode.changed_at)
    if episode.state == State.PAUSED:
        line = Text.assemble(head, (" PAUSED ", "bold black on yellow"))
        line.append(f" for {since}: {episode.reason or 'no reason given'}", "yellow")
        kept = Text("   waits until it is resumed, nothing is lost. To go on:")
        hint = textwrap.wrap(
            episode.resume or "ResumeEpisode of the admin API",
            max(8, width - 4),
            break_long_words=False,
            break_on_hyphens=False,
        )
        return [(0, line), (0, kept), *((0, Text(f"   {part}", "bold")) for part in hint)]
    if episode.state == State.PAUSING:
        line = Text.assemble(head, (" PAUSING ", "bold black on yellow"))
        line.append(f" {episode.in_flight} prompts in flight finish, no new ones start", "yellow")
        return [(0, line), (2, Text(f"   {episode.facts}"))]
    line = Text.assemble(head, (episode.state, "bold cyan"), f" {since}  ")
    if episode.state == State.SAMPLING:
        line.append(episode.facts)
    return [(1, line)]


def _note(level: str, text: str, width: int) -> list[Text]:
    """A note in as many lines as it takes: its end says what to do."""
    warning = level == "warning"
    lines = textwrap.wrap(
        text,
        max(8, width - 1),
        initial_indent=" ! " if warning else "   ",
        subsequent_indent="   ",
        break_on_hyphens=False,
    )
    return [Text(line, "yellow" if warning else "dim") for line in lines]


def _spin(now: float) -> str:
    return _SPINNER[int(now * _FRAMES_PER_SECOND) % len(_SPINNER)]


def _ascii(text: str) -> str:
    """For terminals that cannot show more."""
    table = str.maketrans({"✓": "+", "·": ".", "━": "#", "─": "-", "…": "~", "■": "x", "○": "o"})
    return text.translate(table).encode("ascii", "replace").decode("ascii").replace("?", "*")
