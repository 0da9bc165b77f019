"""What the ledgers in a run's folder prove, in lines for people.

A finished online stage is held against its plan, pairs and weights; of one that goes on, each
episode that is over is held against what was dispatched.
"""

from collections.abc import Mapping
from pathlib import Path

from orchestrator.control.proof import prove
from orchestrator.control.run_folder import RunFolder, StageFolder
from orchestrator.online.archive import archived
from pairloop.admin.v1.admin_pb2 import GetLedgerProofResponse
from services.errors import ArtifactError, StateError
from services.queues.ledger import ends, ledger_audit
from services.queues.ledger_file import LEDGER, UNREADABLE, read_ledger_file
from services.telemetry.format import reasons

_SHOWN = 100


def proven(folder: RunFolder) -> GetLedgerProofResponse:
    """Raises StateError where no online stage has a ledger yet."""
    lines: list[str] = []
    problems: list[str] = []
    finished = {each.stage: each for each in folder.finished()}
    for stage in finished.values():
        if folder.has(stage.path / LEDGER):
            _finished(folder, stage, lines, problems)
    for stage in folder.begun():
        goes_on = stage.stage not in finished or finished[stage.stage].time < stage.time
        if goes_on and (files := archived(stage.path)):
            _begun(folder, stage, files, lines, problems)
    if not lines and not problems:
        raise StateError(
            f"run {folder.run.id} has no ledger in its folder yet; an online stage writes an"
            " episode's there when that is over"
        )
    more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
    return GetLedgerProofResponse(clean=not problems, lines=[*lines, *problems[:_SHOWN], *more])


def _finished(folder: RunFolder, stage: StageFolder, lines: list[str], problems: list[str]) -> None:
    folder.has(stage.path / "pairs.jsonl")  # a link that leads out is refused
    try:
        proof = prove(stage.path)
    except ArtifactError as error:
        problems.append(f"{stage.stage}: {error}")
        return
    dropped = _drops(proof.dropped)
    lines.append(
        f"{stage.stage}: {proof.episodes} episodes, {proof.planned} prompts planned:"
        f" {proof.trained} trained{dropped}; last version {proof.published}"
    )
    if not proof.problems:
        lines.append(f"{stage.stage}: plan, ledger, pairs and weights agree")
    problems += [f"{stage.stage}: {each}" for each in proof.problems]


def _begun(
    folder: RunFolder,
    stage: StageFolder,
    files: Mapping[int, Path],
    lines: list[str],
    problems: list[str],
) -> None:
    told: list[str] = []
    for episode, path in files.items():
        folder.has(path)
        if not episode:
            continue  # the first weights' publication alone
        try:
            events = list(read_ledger_file(path))
        except UNREADABLE as error:
            problems.append(f"{stage.stage}: {path.name} cannot be read ({error})")
            continue
        ids = dict.fromkeys(event.id for event in events if event.kind == "dispatched")
        found = ledger_audit(events, {episode: list(ids)})
        trained, dropped = ends(events)
        told.append(
            f"{stage.stage}: episode {episode}: {len(ids)} prompts dispatched: {len(set(trained))}"
            f" trained{_drops(dropped)}"
        )
        problems += [f"{stage.stage}: {each}" for each in found]
    if (before := len(told) - _SHOWN) > 0:
        told[:before] = [f"{stage.stage}: {before} episodes before these too"]
    lines += told
    lines.append(f"{stage.stage}: it goes on; plan and pairs are held against it when it is done")


def _drops(dropped: dict[str, int]) -> str:
    count = sum(dropped.values())
    return f", {count} dropped ({reasons(dropped)})" if count else ""
