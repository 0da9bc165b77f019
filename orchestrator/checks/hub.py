"""Whether the hub has what a run names, asked for all names at once and within five seconds."""

import threading
from collections.abc import Mapping

from orchestrator.artifacts.inputs import inputs_of
from orchestrator.artifacts.lineage import Lineage
from orchestrator.jobs.job import Job
from services.errors import PairloopError, UnreachableError
from services.hub import RepoType, is_hub_name, require_on_hub
from services.inputs import Model, Rows, Tokenizer

_WITHIN_S = 5.0
"""A name server that is silent is not bound by the request's own limit."""


def check_hub(stages: Mapping[str, Job], lineage: Lineage) -> None:
    """Raise the first name's UnreachableError, in the order of the stages."""
    wanted = list(_names(stages, lineage).items())
    errors: dict[str, PairloopError] = {}

    def ask(name: str, kind: RepoType, key: str) -> None:
        try:
            require_on_hub(name, kind, key)
        except PairloopError as error:
            errors[name] = error

    threads = [
        threading.Thread(target=ask, args=(name, kind, key), daemon=True)
        for (name, kind), key in wanted
    ]
    for thread in threads:
        thread.start()
    for ((name, _), key), thread in zip(wanted, threads, strict=True):
        thread.join(_WITHIN_S)
        if thread.is_alive():
            raise UnreachableError(
                f"'{key}': there is no folder {name}, and the hub did not answer within"
                f" {_WITHIN_S:g} s; give a folder, or reach the hub"
            )
        if name in errors:
            raise errors[name]


def _names(stages: Mapping[str, Job], lineage: Lineage) -> dict[tuple[str, RepoType], str]:
    """Every hub name with its kind, and the key it was first named by."""
    found: dict[tuple[str, RepoType], str] = {}
    for key, stage in stages.items():
        where = f"stages.{key}." if len(stages) > 1 else ""
        for each in inputs_of(stage):
            if isinstance(each.mark, Model | Tokenizer) and is_hub_name(each.value):
                found.setdefault((each.value, "model"), where + each.key)
            elif isinstance(each.mark, Rows) and is_hub_name(each.value):
                found.setdefault((each.value, "dataset"), where + each.key)
        for role, path in stage.parents(lineage).items():
            if is_hub_name(path):
                found.setdefault((str(path), "model"), where + role)
    return found
