"""Nested values as a flat mapping, without passwords: as trackers and logs keep them."""

from collections.abc import Mapping, Sequence
from typing import Any

from services.telemetry.format import redact

Plain = str | int | float | bool


def flattened(nested: Mapping[str, Any], above: str = "") -> dict[str, Plain]:
    """Values by dotted key, list entries by their index; keys that are not set are left out."""
    flat: dict[str, Plain] = {}
    for key, value in nested.items():
        name = f"{above}{key}"
        match value:
            case str():
                flat[name] = redact(value)
            case bool() | int() | float():
                flat[name] = value
            case Mapping():
                flat |= flattened(value, f"{name}.")
            case Sequence():
                entries = {str(index): each for index, each in enumerate(value)}
                flat |= flattened(entries, f"{name}.")
    return flat
