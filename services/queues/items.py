"""What goes in and out of the queues."""

from dataclasses import dataclass
from typing import Literal

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
