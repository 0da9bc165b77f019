"""Numbers, times and texts as people read them; shared by views, tables and the report."""

import math
import re
from collections.abc import Sequence

_CONTROL = re.compile(r"(?:\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x1f\x7f-\x9f])+")
_PASSWORD = re.compile(r"(\w://[^:/@\s]*):[^@/\s]+@")
_SPARKS = "▁▂▃▄▅▆▇█"


def duration(seconds: float | None) -> str:
    """ "4.2 s", "38 s", "3:07", "1:02:03"; "-" when unknown."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    seconds = max(0.0, seconds)
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def count(value: float) -> str:
    """ "950", "12.3k", "4.56M", "1.2G"."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.3g}{name}"
    return f"{value:.0f}"


def size(value: float) -> str:
    """Bytes: "512 B", "1.5 MiB"."""
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if value >= unit:
            return f"{value / unit:.3g} {name}"
    return f"{value:.0f} B"


def number(value: float | None) -> str:
    """Three significant digits, never more; scientific only when very small or large."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    if abs(value) < 1e-3 or abs(value) >= 1e5:
        mantissa, power = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(power)}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(digits, 4)}f}"


def metric(value: float) -> str:
    """A count as "12,000", anything else as `number` has it."""
    return f"{value:,.0f}" if value == int(value) else number(value)


def share(value: float | None) -> str:
    """Three decimals, so that a column lines up: "0.493"; "-" when unknown."""
    return "-" if value is None else f"{value:.3f}"


def reasons(dropped: dict[str, int]) -> str:
    """Drops by reason, most first: "tie 3, margin 2"."""
    kept = sorted((item for item in dropped.items() if item[1]), key=lambda i: (-i[1], i[0]))
    return ", ".join(f"{reason_name(name)} {n}" for name, n in kept)


def reason_name(reason: str) -> str:
    """ "DROP_REASON_SINGLE_ANSWER" and "single_answer" both read "single answer".

    What went to the dead letters is an "error".
    """
    name = reason.removeprefix("DROP_REASON_").replace("_", " ").lower()
    return "error" if name == "dead letter" else name


def sparkline(values: Sequence[float], width: int = 16) -> str:
    """The last `width` values as bars, lowest to highest."""
    shown = list(values)[-width:]
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    span = high - low
    if span == 0:
        return _SPARKS[3] * len(shown)
    return "".join(_SPARKS[min(7, int((value - low) / span * 8))] for value in shown)


def one_line(text: str) -> str:
    """The text without control characters and line ends, for a terminal or a log."""
    return " ".join(_CONTROL.sub(" ", text).split())


def redact(text: str) -> str:
    """The text with every password in an address hidden."""
    return _PASSWORD.sub(r"\1:***@", text)
