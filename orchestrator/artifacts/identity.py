"""What a job computes, as plain values: the part of its settings that a fingerprint covers.

    identity     {"train.optimizer.lr": 4e-05, "policy": "artifact:1f3a...", ...}
    fingerprint  16 hex digits over it: equal fingerprints mean equal work
    trunk        the same without the counts that more work can raise: two stages of one trunk
                 are one work, of which one has gone further

Operational fields are not in it (services/settings.py), inputs count by content (content.py).
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.artifacts.inputs import Input, inputs_of
from services.settings import EXTENDABLE, Settings, fields_of, is_operational

CODE = "0.1.0"
"""Of what the same settings compute: raised when that changes on purpose."""

_TOKENS = {
    "artifact ": "another artifact",
    "file ": "other content",
    "folder ": "other content",
}
"""How content.py begins what stands for an input, and what a reader is told of two that differ."""

Identity = Mapping[str, Any]
"""Dotted key -> JSON value."""


@dataclass(frozen=True)
class Difference:
    """A key whose value is another one than before."""

    key: str
    before: Any
    after: Any

    def __str__(self) -> str:
        for kind, words in _TOKENS.items():
            if str(self.before).startswith(kind) and str(self.after).startswith(kind):
                return f"{self.key} ({words})"
        return f"{self.key} {_shown(self.before)} -> {_shown(self.after)}"


def identity_of(settings: Settings, content: Callable[[Input], str]) -> dict[str, Any]:
    """Every identity field, inputs by what `content` says of them."""
    by_content = {each.key: content(each) for each in inputs_of(settings)}
    return {key: by_content.get(key, value) for key, value in _values(settings, "")}


def extent_of(settings: Settings) -> dict[str, int]:
    """The counts that more work can raise, by key."""
    return dict(_extents(settings, ""))


def fingerprint(identity: Identity) -> str:
    """16 hex digits over an identity."""
    text = json.dumps({"code": CODE, "identity": dict(identity)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def trunk(identity: Identity, extent: Mapping[str, int]) -> str:
    """As `fingerprint`, whatever the extent."""
    return fingerprint({key: value for key, value in identity.items() if key not in extent})


def differences(before: Identity, after: Identity) -> list[Difference]:
    """The keys that differ, by name; None stands for a key that one of them does not have."""
    return [
        Difference(key, before.get(key), after.get(key))
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def _values(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Settings):
        for name, field, inner in fields_of(value):
            if not is_operational(field):
                yield from _values(inner, f"{key}.{name}" if key else name)
    elif isinstance(value, list | tuple) and value:
        for at, inner in enumerate(value):
            yield from _values(inner, f"{key}.{at}")
    elif isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _values(inner, f"{key}.{name}")
    else:
        yield key, value


def _extents(settings: Settings, prefix: str) -> Iterator[tuple[str, int]]:
    for name, field, value in fields_of(settings):
        if EXTENDABLE in field.metadata:
            yield f"{prefix}{name}", int(value)
        elif isinstance(value, Settings):
            yield from _extents(value, f"{prefix}{name}.")


def _shown(value: Any) -> str:
    """Short."""
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
