"""How a command speaks, before its config is known to be sound."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import yaml

from services.telemetry.log.lines import LogFormat, log_format

_KEY = "log.format="


def asked_format(path: Path, overrides: Sequence[str]) -> LogFormat:
    """As the last override, the file or the environment says; what is wrong in them is no matter
    here."""
    asked = [each.removeprefix(_KEY) for each in overrides if each.startswith(_KEY)]
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError, yaml.YAMLError):
        asked.insert(0, yaml.safe_load(path.read_text(encoding="utf-8"))["log"]["format"])
    match asked[-1:]:
        case ["json"]:
            return "json"
        case ["text"]:
            return "text"
    return log_format()
