"""The reward functions of the benchmarks: plain Python, the same for us and for TRL."""

import json
import re
from collections.abc import Mapping
from zlib import crc32


def score(prompt: str, answer: str, metadata: Mapping[str, str]) -> float:
    """A number in [0, 1) that depends on the answer alone; two answers hardly ever tie."""
    return crc32(answer.encode()) / 2**32


def checked(prompt: str, answer: str, metadata: Mapping[str, str]) -> float:
    """1 when the answer is the one asked for, else 0: the rule of our reward part "checker"."""
    if pattern := metadata.get("pattern"):
        return float(re.fullmatch(pattern, answer.strip(), re.DOTALL) is not None)
    wanted = json.loads(metadata["answers"]) if metadata.get("answers") else [metadata["answer"]]
    return float(" ".join(answer.split()) in {" ".join(str(one).split()) for one in wanted})
