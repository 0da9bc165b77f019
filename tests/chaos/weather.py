"""What makes the reward slow, or fail: a file that the storm lays down."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

FOLDER = "PAIRLOOP_CHAOS"
"""Environment variable: where the files are."""
SLOW_S = 1.0
"""Of one answer: a batch of a few groups passes the reward's deadline, one group does not."""


def score(prompt: str, answer: str, metadata: Mapping[str, str]) -> float:
    """Always the same, so that it moves no choice."""
    folder = Path(os.environ[FOLDER])
    if (folder / "failing").exists():
        raise RuntimeError("the reward fails, as the storm wants it")
    if (folder / "slow").exists():
        time.sleep(SLOW_S)
    return 0.0


@contextmanager
def weather(folder: Path, kind: Literal["slow", "failing"]) -> Iterator[None]:
    """The reward is so for the while."""
    (folder / kind).touch()
    try:
        yield
    finally:
        (folder / kind).unlink()
