"""Heuristic filters of pre-training text, in the manner of Gopher (arXiv 2112.11446, A.1.1).

Pure functions of the text; every text that goes is counted under the first reason it meets.
"""

import hashlib
import re
from collections.abc import Iterable

from services.data.minhash import NearDuplicates
from services.data.settings import FilterSettings

REASONS = (
    "too_short",
    "too_long",
    "symbols",
    "repeated_lines",
    "repeated_ngrams",
    "duplicate",
    "near_duplicate",
)

_SYMBOL = re.compile(r"[^\w\s]|_")
_NGRAM = 5


def clean(texts: Iterable[str], settings: FilterSettings) -> tuple[list[str], dict[str, int]]:
    """The texts that pass, in order, and how many went for each reason (reasons met alone).

    Of copies and near copies the first is kept.
    """
    kept: list[str] = []
    dropped: dict[str, int] = {}
    seen: set[bytes] = set()
    near = NearDuplicates(settings.near_duplicate_similarity)
    for text in texts:
        reason = quality(text, settings) or _copy_of(text, seen)
        # Signatures cost most, so only texts that are in every other way good get one.
        if not reason and settings.near_duplicate_similarity < 1.0 and near.seen(text):
            reason = "near_duplicate"
        if reason:
            dropped[reason] = dropped.get(reason, 0) + 1
        else:
            kept.append(text)
    return kept, dropped


def quality(text: str, settings: FilterSettings) -> str:
    """The reason to drop a text for what it is by itself; "" to keep it."""
    if len(text) < settings.min_chars:
        return "too_short"
    if len(text) > settings.max_chars:
        return "too_long"
    if symbol_ratio(text) > settings.max_symbol_ratio:
        return "symbols"
    if line_repetition(text) > settings.max_line_repetition:
        return "repeated_lines"
    if ngram_repetition(text) > settings.max_ngram_repetition:
        return "repeated_ngrams"
    return ""


def symbol_ratio(text: str) -> float:
    """Characters that are neither letters, digits nor spaces, over all."""
    return len(_SYMBOL.findall(text)) / max(1, len(text))


def line_repetition(text: str) -> float:
    """Share of non-empty lines that repeat an earlier one."""
    return _repetition([line.strip() for line in text.splitlines() if line.strip()])


def ngram_repetition(text: str) -> float:
    """Share of 5-grams of words that repeat an earlier one."""
    words = text.split()
    return _repetition(list(zip(*(words[at:] for at in range(_NGRAM)), strict=False)))


def _repetition(items: list[str] | list[tuple[str, ...]]) -> float:
    return 1.0 - len(set(items)) / len(items) if items else 0.0


def _copy_of(text: str, seen: set[bytes]) -> str:
    digest = hashlib.blake2b(" ".join(text.split()).encode(), digest_size=16).digest()
    if digest in seen:
        return "duplicate"
    seen.add(digest)
    return ""
