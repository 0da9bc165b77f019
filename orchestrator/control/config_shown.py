"""The config of a run as people may see it.

config.yaml has no secret as a run writes it (services/queues/settings.py); a folder may be older
than that, or changed by hand.
"""

import re
from typing import Any

import yaml

from orchestrator.control.run_folder import RunFolder
from services.errors import StateError
from services.queues.endpoint import masked
from services.telemetry.format import redact

_FILE = "config.yaml"
_BYTES = 2**20
_SECRET = re.compile(r"(?i)(^|_)(password|passwd|secret|api_?key|access_?key|auth_?token)$")
_HIDDEN = "***"


def config_shown(folder: RunFolder) -> str:
    """The YAML of its last attempt. Raises StateError where there is none."""
    text = folder.text(folder.path / _FILE, _BYTES)
    if text is None:
        raise StateError(f"run {folder.run.id} has no {_FILE} in {folder.path}; it was removed")
    try:
        config = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError):
        raise StateError(f"{folder.path / _FILE} is no YAML; it was changed") from None
    return yaml.safe_dump(_hidden(config), sort_keys=False, allow_unicode=True)


def _hidden(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _HIDDEN if each and _SECRET.search(str(key)) else _hidden(each)
            for key, each in value.items()
        }
    if isinstance(value, list):
        return [_hidden(each) for each in value]
    return masked(redact(value)) if isinstance(value, str) else value
