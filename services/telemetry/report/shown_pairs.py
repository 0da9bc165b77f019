"""Pairs to read: which of them the report shows, and where the two answers differ."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from services.telemetry.record.events import PairExample
from services.telemetry.record.state import Stage

_LONGEST = 3000
"""Characters of an answer that are shown; comparing texts takes time with the square."""
_EPISODES = 12
_PAIRS = 4

Piece = tuple[bool, str]
"""Whether the text is not in the other answer, and the text."""


@dataclass(frozen=True, slots=True)
class ShownPair:
    """A pair with its differences found."""

    example: PairExample
    messages: list[dict[str, str]]
    """What was said before the answer; each text is cut where it is long."""
    chosen: list[Piece]
    rejected: list[Piece]


@dataclass(frozen=True, slots=True)
class ShownEpisode:
    """The pairs of one episode; 0 is a stage without episodes."""

    stage: str
    number: int
    pairs: list[ShownPair]
    more: int
    """Pairs recorded but not shown."""
    open: bool


def shown_episodes(stage: Stage) -> list[ShownEpisode]:
    """The first, the last and some between; the ends are open to read."""
    numbers = _spread(sorted(stage.examples), _EPISODES)
    shown = []
    for number in numbers:
        recorded = list(stage.examples[number].values())
        pairs = [_shown(example) for example in recorded[:_PAIRS]]
        ends = number in (numbers[0], numbers[-1])
        shown.append(ShownEpisode(stage.name, number, pairs, len(recorded) - len(pairs), ends))
    return shown


def differences(a: str, b: str) -> tuple[list[Piece], list[Piece]]:
    """Both texts in pieces, by words; a piece is marked where the other text has none like it."""
    left, right = _words(a), _words(b)
    matcher = difflib.SequenceMatcher(None, left, right, autojunk=False)
    pieces_a: list[Piece] = []
    pieces_b: list[Piece] = []
    for kind, a0, a1, b0, b1 in matcher.get_opcodes():
        if a1 > a0:
            pieces_a.append((kind != "equal", "".join(left[a0:a1])))
        if b1 > b0:
            pieces_b.append((kind != "equal", "".join(right[b0:b1])))
    return pieces_a, pieces_b


def _words(text: str) -> list[str]:
    return re.findall(r"\w+|\s+|[^\w\s]", text)


def _shown(example: PairExample) -> ShownPair:
    chosen, rejected = differences(_cut(example.chosen), _cut(example.rejected))
    said = example.messages or [{"role": "user", "content": example.prompt}]
    messages = [{"role": m["role"], "content": _cut(m["content"])} for m in said]
    return ShownPair(example, messages, chosen, rejected)


def _cut(text: str) -> str:
    if len(text) <= _LONGEST:
        return text
    return f"{text[:_LONGEST]}… ({len(text) - _LONGEST:,} more characters)"


def _spread(numbers: Sequence[int], most: int) -> list[int]:
    """At most so many, evenly spread, with both ends."""
    if len(numbers) <= most:
        return list(numbers)
    return [numbers[round(i * (len(numbers) - 1) / (most - 1))] for i in range(most)]
