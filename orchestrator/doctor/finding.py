"""What a check of the doctor says."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from orchestrator.doctor.subject import Subject
from services.errors import PairloopError

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, how it is, and what to do about it."""

    check: str
    level: Level
    found: str
    advice: str = ""
    """Of a warning or a problem."""


Check = Callable[[Subject], Iterator[Finding]]


def problem_of(check: str, error: PairloopError, otherwise: str) -> Finding:
    """An error of ours: what to do stands after its last "; ", or else is `otherwise`."""
    return told(check, "problem", str(error), otherwise)


def told(check: str, level: Level, message: str, otherwise: str = "") -> Finding:
    """A line in the form of our errors and warnings, taken apart."""
    found, mark, advice = " ".join(message.split()).rpartition("; ")
    if not mark:
        found, advice = advice, otherwise
    return Finding(check, level, found, advice)
