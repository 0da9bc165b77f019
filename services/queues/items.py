"""What goes in and out of the queues."""

from dataclasses import dataclass
from typing import Literal

StreamName = Literal["prompts", "rollouts"]


@dataclass(frozen=True)
class Item:
    """One delivery of one entry: commit it, or fail it."""

    entry_id: str
    prompt_id: str
    episode: int
    payload: bytes
    """A serialized Prompt (of "prompts") or Rollout (of "rollouts")."""
    consumer: str
    """Who took it."""
    deaths: int = 0
    """Consumers that ended while they held it."""


Refusal = Literal["", "credits", "state", "order"]
"""No credit is left; the episode is not SAMPLING; a prompt before it is not dispatched."""


@dataclass(frozen=True)
class Dispatched:
    """What became of the prompts, from the first: sent + known of them are dispatched."""

    sent: int
    known: int
    """Dispatched before."""
    refused: Refusal
    """Why the others were not."""


@dataclass(frozen=True)
class DeadLetter:
    """An item that failed too often, kept for a person to look at."""

    entry_id: str
    stream: str
    prompt_id: str
    episode: int
    failures: int
    """Tries that ended in an error."""
    deaths: int
    """Consumers that ended while they held it."""
    error: str
    payload: bytes
