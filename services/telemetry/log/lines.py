"""A line of a process for whoever started it: as text, or as one JSON object.

    {"time": "2026-01-31T09:30:00.125Z", "level": "warning", "run": "demo", "stage": "online_dpo",
     "episode": 3, "worker": "rollout-0", "event": "note", "text": "...", "numbers": {"loss": 0.5}}

What is not known is left out, but for time, level, event and text.
"""

import json
import math
import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from services.telemetry.format import one_line, redact

VARIABLE = "PAIRLOOP_LOG_FORMAT"

LogFormat = Literal["text", "json"]
Level = Literal["info", "warning", "error"]


def log_format(configured: LogFormat | None = None) -> LogFormat:
    """As the config says, or else the environment; text where that says neither."""
    if configured is not None:
        return configured
    return "json" if os.environ.get(VARIABLE, "").strip().lower() == "json" else "text"


def json_line(
    text: str,
    *,
    event: str,
    level: Level = "info",
    at: float | None = None,
    numbers: Mapping[str, float] | None = None,
    **about: str | int,
) -> str:
    """With its line end; `at` in seconds since the epoch, now without it.

    `about`: run, stage, episode, worker. Empty ones are left out, and numbers that JSON has not.
    """
    moment = datetime.fromtimestamp(time.time() if at is None else at, UTC)
    row: dict[str, Any] = {
        "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": level,
        **{key: value for key, value in about.items() if value not in ("", 0)},
        "event": event,
        "text": redact(one_line(text)),
    }
    finite = {key: value for key, value in (numbers or {}).items() if math.isfinite(value)}
    if finite:
        row["numbers"] = finite
    return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"


def last_line(
    text: str,
    shown: LogFormat,
    *,
    event: str,
    level: Level = "info",
    run: str = "",
    numbers: Mapping[str, float] | None = None,
) -> str:
    """What a process says of itself, outside a record: with its line end."""
    if shown == "json":
        return json_line(text, event=event, level=level, run=run, numbers=numbers)
    return f"pairloop: {text}\n"
