"""Checks that need no cluster: every file, model folder, hub name, port and address a job names.

They run before any heavy import, and raise the first error as one line. What each input is, its
mark says (services/inputs.py); what a job asks for beside that, the job itself.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from orchestrator.artifacts.inputs import Input, inputs_of
from orchestrator.artifacts.lineage import Lineage
from orchestrator.artifacts.links import check_links
from orchestrator.artifacts.store import FILE
from orchestrator.checks.access import check_access
from orchestrator.checks.addresses import check_addresses
from orchestrator.checks.folders import meant, taken_for_hub
from orchestrator.checks.hub import check_hub
from orchestrator.checks.memory import check_kv_cache
from orchestrator.checks.models import check_model_folder, check_tokenizer_folder
from orchestrator.checks.reward import check_function
from orchestrator.checks.rollouts import check_rollouts
from orchestrator.jobs.job import Job
from services.errors import ConfigError, DataError, PairloopError
from services.inputs import Function, Model, Rollouts, Rows, Tokenizer
from services.telemetry.tracing.check import check_tracing
from services.telemetry.trackers.check import check_trackers


def check(job: Job, *, addresses: bool = True) -> None:
    """Raise the first error of a job whose inputs are not as they must be.

    With `addresses`, also when a port is taken, or Redis, Ray or the hub does not answer.
    """
    check_access(job.admin)
    check_trackers(job.trackers)
    check_tracing(job.tracing)
    stages = job.expand()
    lineage = Lineage(stages)
    earlier: list[str] = []
    for key, stage in stages.items():
        place = partial(job.place, key)
        check_links(stage, earlier, place)
        for each in inputs_of(stage):
            placed = replace(each, key=place(each.key))
            if not each.linked:
                _check_no_stage_is_meant(placed, earlier)
                check_input(placed)
            elif isinstance(each.mark, Model):
                check_made_kind(placed, each.mark.kind, stages[each.linked])
            elif isinstance(each.mark, Rollouts):
                check_records(placed, stages[each.linked])
        try:
            stage.check(lineage)
        except PairloopError as error:
            # Its keys are the stage's own.
            raise type(error)(f"{key}: {error}" if len(stages) > 1 else str(error)) from None
        earlier.append(key)
    if addresses:
        check_addresses(job.ray, list(stages.values()), job.own_listeners())
        if not (job.ray.address or os.environ.get("RAY_ADDRESS")):
            check_kv_cache([engine for stage in stages.values() for engine in stage.engines()])
        check_hub(stages, lineage)


def _check_no_stage_is_meant(each: Input, earlier: Sequence[str]) -> None:
    """ConfigError for the bare name of an earlier stage where no such folder is."""
    name = each.value.split("/")[0]
    if name in earlier and not isinstance(each.mark, Function) and not Path(name).exists():
        raise ConfigError(
            f"'{each.key}': there is no {each.value}; what stage {name} makes is written"
            f" '@{each.value}'"
        )


def check_made_kind(each: Input, kind: str, maker: Job) -> None:
    """ConfigError when a stage that makes something else is linked to as a model of this kind."""
    if "/" not in each.value and maker.makes != kind:
        raise ConfigError(
            f"'{each.key}': {each.value} makes a {maker.makes}, and a {kind} belongs here"
        )


def check_records(each: Input, maker: Job) -> None:
    """ConfigError when the stage that is linked to records no rollouts."""
    if not maker.records():
        raise ConfigError(
            f"'{each.key}': {each.linked} records no rollouts; link to an online stage, and set"
            " record=true there"
        )


def check_input(each: Input) -> None:
    """One input, by its mark."""
    match each.mark:
        case Model(kind=kind):
            check_model_folder(each.value, each.key, kind)
        case Tokenizer():
            check_tokenizer_folder(each.value, each.key)
        case Rollouts():
            check_rollouts(each.value, each.key)
        case Function():
            check_function(each.value, each.key)
        case Rows(kind=rows):
            if each.source is not None:
                # Imported here: a config without data needs no reader.
                from services.data.rows import check_rows
                from services.data.sources import files_of

                try:
                    found = files_of(each.value)
                except DataError as error:
                    hint = "" if Path(each.value).exists() else meant(each.value)
                    raise DataError(f"'{each.key}': {error}{hint}") from None
                if not found and (wrong := taken_for_hub(each.value)):
                    raise DataError(f"'{each.key}': {wrong}")
                if len(found) > 1 and (Path(each.value) / FILE).is_file():
                    names = ", ".join(file.name for file in found)
                    raise DataError(
                        f"'{each.key}': {each.value} is an artifact of files for several uses;"
                        f" name the one that is meant: {names}"
                    )
                check_rows(each.source, rows)


def check_made(stage: Job, lineage: Lineage) -> None:
    """The inputs of a stage whose links are resolved: what earlier stages left."""
    for each in inputs_of(stage):
        if Path(each.value).exists() or isinstance(each.mark, Model | Tokenizer):
            check_input(each)
    stage.check(lineage)
