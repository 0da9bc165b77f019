"""What goes in and out of the queues."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

_NUMBER = re.compile(r"\d+(\.\d+)?")

StreamName = Literal["prompts", "rollouts"]


@dataclass(frozen=True)
class Item:
    """One delivery of one entry: commit it, or fail it."""

    entry_id: str
    payload: bytes
    """A serialized Prompt (of "prompts") or Rollout (of "rollouts")."""
    deliveries: int
    """1 the first time."""


@dataclass(frozen=True)
class Dispatched:
    """What became of the prompts, from the first: sent + known of them are dispatched."""

    sent: int
    known: int
    """Dispatched before."""
    refused: Literal["", "credits", "state"]
    """Why the others were not: no credit left, or the episode is not SAMPLING."""


@dataclass(frozen=True)
class DeadLetter:
    """An item that failed too often, kept for a person to look at."""

    entry_id: str
    stream: str
    prompt_id: str
    episode: int
    deliveries: int
    error: str
    payload: bytes


def causes(letters: Iterable[DeadLetter]) -> str:
    """Their errors and how often each, the most frequent first: "30 x ..., 2 x ..." ("" for none).

    The prompt and the numbers that an error names do not make it another error; the first of its
    kind is shown.
    """
    counts: Counter[str] = Counter()
    shown: dict[str, str] = {}
    for letter in letters:
        error = letter.error.replace(letter.prompt_id, "a prompt")
        kind = _NUMBER.sub("#", error)
        counts[kind] += 1
        shown.setdefault(kind, error)
    return ", ".join(f"{count} x {shown[kind]}" for kind, count in counts.most_common())
