"""Rewards that need no model: pure functions of one answer."""

import json
from collections.abc import Mapping
from typing import Any

import regex  # type: ignore[import-untyped]

from services.errors import DataError

CHECKED = frozenset({"answer", "answers", "pattern"})
"""Of a prompt's metadata, what the checker reads."""
MAX_PATTERN = 1000
"""Characters of a pattern."""
MATCH_TIMEOUT_S = 2.0
"""A pattern may backtrack without end; `re` could not be stopped, `regex` can."""


def checker(prompt_id: str, metadata: Mapping[str, str], answer: str) -> float:
    """1.0 when the answer is what the prompt's metadata asks for, else 0.0.

    "answer": equal after whitespace is normalised; "answers", a JSON list: equal to one of them.
    "pattern": the stripped answer, whole, matches this regular expression (Python's syntax). Of
    several, all must hold. Raises DataError, naming the prompt, for a prompt with none, with
    "answers" that are no list, or with a pattern that is broken, longer than 1,000 characters or
    slower than 2 seconds.
    """
    if not CHECKED & metadata.keys():
        raise DataError(
            f'{prompt_id}: the checker needs metadata "answer" or "pattern" and the prompt has '
            f"{', '.join(sorted(metadata)) or 'none'}"
        )
    if "answer" in metadata and _normal(answer) != _normal(metadata["answer"]):
        return 0.0
    if "answers" in metadata and _normal(answer) not in map(
        _normal, right_answers(prompt_id, metadata["answers"])
    ):
        return 0.0
    if "pattern" in metadata and not _matches(prompt_id, metadata["pattern"], answer.strip()):
        return 0.0
    return 1.0


def length(tokens: int, target: int, scale: float) -> float:
    """0.0 up to `target` tokens, then down by 1 every `scale` tokens."""
    return -max(0, tokens - target) / scale


def missing_eos(cut: bool) -> float:
    """-1.0 for an answer that was cut before its end of sequence, else 0.0."""
    return -1.0 if cut else 0.0


def _normal(text: str) -> str:
    return " ".join(text.split())


def right_answers(prompt_id: str, text: str) -> list[str]:
    """The list that "answers" is; DataError when it is none or empty."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, list) or not found:
        raise DataError(f"{prompt_id}: 'answers' must be a list that is not empty")
    return [str(one) for one in found]


def compiled(prompt_id: str, pattern: str) -> Any:
    """The regular expression; DataError for a pattern that is too long or none."""
    if len(pattern) > MAX_PATTERN:
        raise DataError(
            f"{prompt_id}: the pattern in its metadata has {len(pattern)} characters, "
            f"above {MAX_PATTERN}"
        )
    try:
        return regex.compile(pattern)  # regex keeps it
    except regex.error as error:
        raise DataError(f"{prompt_id}: the pattern in its metadata is broken: {error}") from error


def _matches(prompt_id: str, pattern: str, answer: str) -> bool:
    expression = compiled(prompt_id, pattern)
    try:
        return expression.fullmatch(answer, timeout=MATCH_TIMEOUT_S) is not None
    except TimeoutError as error:
        raise DataError(
            f"{prompt_id}: the pattern in its metadata took over {MATCH_TIMEOUT_S:g} s on one "
            "answer; write it without nested repetitions"
        ) from error
