"""A line of pairs.jsonl as people look at it: the group with its scores, and why these two."""

import json
from collections.abc import Mapping
from typing import Any

from pairloop.admin.v1.admin_pb2 import ChatMessage, Pair, Sample
from services.admin.ports import MESSAGE_BYTES
from services.telemetry.format import number

_TEXT = 20_000
"""Characters of one text."""
_TEXTS = 600_000
"""Of all texts of a pair: a client takes 4 MB in one message."""
_RULES = {
    "best-worst": "best against worst of {n} answers",
    "best-worst-of-5": "best of {n} answers against the worst of 5 others drawn",
}


def shown(line: bytes) -> Pair:
    """Of a run's pairs or of a preference set's; of a line that is neither, what is wrong."""
    try:
        pair = _pair(json.loads(line))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return Pair(why=f"this line is no pair ({type(error).__name__}); it was changed")
    if pair.ByteSize() > MESSAGE_BYTES:
        return Pair(
            prompt_id=pair.prompt_id[:_TEXT], episode=pair.episode, why="too large to be shown"
        )
    return pair


def _pair(row: Mapping[str, Any]) -> Pair:
    """A preference set's row has the two alone."""
    group = row.get("answers") or [
        {"text": row[which], "score": row[f"{which}_score"]} for which in ("chosen", "rejected")
    ]
    limit = min(_TEXT, _TEXTS // (len(row["prompt"]) + len(group)))
    samples = [Sample(text=_cut(each["text"], limit), score=each["score"]) for each in group]
    for which in ("chosen", "rejected"):
        setattr(samples[_index(group, row[which], row[f"{which}_score"])], which, True)
    return Pair(
        prompt_id=row.get("id", ""),
        episode=row.get("episode", 0),
        prompt=[
            ChatMessage(role=each["role"], content=_cut(each["content"], limit))
            for each in row["prompt"]
        ],
        samples=samples,
        why=_why(row, len(group)),
    )


def _index(group: list[dict[str, Any]], text: str, score: float) -> int:
    """Of equal answers the first is the one that was picked (services/pairs/select.py)."""
    return next(
        index for index, each in enumerate(group) if (each["text"], each["score"]) == (text, score)
    )


def _why(row: Mapping[str, Any], answers: int) -> str:
    high, low = row["chosen_score"], row["rejected_score"]
    scores = f"{number(high)} against {number(low)}, margin {number(high - low)}"
    rule = row.get("rule", "")
    parts = [f"{_RULES.get(rule, rule).format(n=answers)}: {scores}" if rule else scores]
    if gap := row.get("length_gap", 0):
        parts.append(f"chosen is {abs(gap)} tokens {'longer' if gap > 0 else 'shorter'}")
    if scorer := row.get("scorer", ""):
        parts.append(f"scored by {_cut(scorer, 500)}")
    return "; ".join(parts)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]}\n[cut: {len(text):,} characters]"
