"""Ids of traces and spans, computed from the prompt: every process knows them, none carries them.

trace    the prompt of a run
dispatch <- sample <- score <- pair <- train <- publish      each the parent of the next
"""

import hashlib
from typing import Literal, get_args

Step = Literal["dispatch", "sample", "score", "pair", "train", "publish"]

STEPS: tuple[Step, ...] = get_args(Step)
"""In the order that a prompt goes through them."""


def trace_id(run: str, prompt: str) -> int:
    """128 bits. `run`: its id, as the same run made elsewhere has the same prompts."""
    return _hashed(16, run, prompt)


def span_id(run: str, prompt: str, step: Step) -> int:
    """64 bits."""
    return _hashed(8, run, prompt, step)


def before(step: Step) -> Step | None:
    """The step whose span is the parent of this one's."""
    at = STEPS.index(step)
    return STEPS[at - 1] if at else None


def in_sample(trace: int, ratio: float) -> bool:
    """Whether a trace is kept: by its own id, so that every process says the same."""
    return (trace & (2**64 - 1)) < ratio * 2**64


def _hashed(size: int, *parts: str) -> int:
    digest = hashlib.blake2b("\0".join(parts).encode(), digest_size=size).digest()
    return int.from_bytes(digest) or 1  # zero is no id
