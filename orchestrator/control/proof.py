"""What the ledger of a finished online stage proves: plan, ledger, pairs and weights agree."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.artifacts.store import Artifact, read_artifact
from orchestrator.online.prompts import prompt_id
from services.errors import ArtifactError
from services.queues.ledger import LedgerEvent, ends, ledger_audit
from services.queues.ledger_file import LEDGER, UNREADABLE, read_ledger_file

_PAIRS = "pairs.jsonl"


@dataclass
class Proof:
    """Of one artifact."""

    artifact: str
    episodes: int = 0
    planned: int = 0
    trained: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    """By reason."""
    restored: int = 0
    """Prompts whose way Redis lost, and the checkpoint has."""
    published: int = 0
    """The last version."""
    problems: list[str] = field(default_factory=list)


def ledgers_in(path: Path) -> list[Path]:
    """The artifacts with a ledger at a path: the artifact itself, or the stages of a run's folder.

    Raises ArtifactError when there is none.
    """
    folder = path.parent if path.name == LEDGER else path
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    found = [each for each in (folder, *inside) if (each / LEDGER).is_file()]
    if not found:
        raise ArtifactError(
            f"{path} has no {LEDGER}, and no stage in it has; name the folder of a run that ended,"
            " or of its online stage"
        )
    return found


def prove(folder: Path) -> Proof:
    """Every planned prompt was trained once or dropped with a reason, and by these pairs.

    Raises ArtifactError when the ledger cannot be read.
    """
    artifact = read_artifact(folder)
    if artifact is None:
        raise ArtifactError(f"{folder} has a ledger and no artifact.json; it is no whole artifact")
    try:
        events = list(read_ledger_file(folder / LEDGER))
    except UNREADABLE as error:
        raise ArtifactError(
            f"{folder / LEDGER} cannot be read ({error}); it was cut off or changed"
        ) from None
    planned = _plan(artifact, events)
    proof = Proof(str(folder), len(planned), sum(map(len, planned.values())))
    proof.problems = ledger_audit(events, planned)
    trained, proof.dropped = ends(events)
    proof.trained = len(trained)
    proof.restored = sum(event.kind == "restored" for event in events)
    versions = [int(event.detail) for event in events if event.kind == "published"]
    proof.published = max(versions, default=0)
    if missing := sorted(set(planned) - set(versions)):
        proof.problems.append(f"episode {missing[0]}: its weights were never published")
    pairs = Counter(_pair_ids(folder / _PAIRS))
    proof.problems += [f"{id_}: trained, and not in {_PAIRS}" for id_ in trained if not pairs[id_]]
    proof.problems += [f"{id_}: {n} times in {_PAIRS}" for id_, n in pairs.items() if n > 1]
    return proof


def _plan(artifact: Artifact, events: list[LedgerEvent]) -> dict[int, list[str]]:
    """By the config, as the loop planned it; the run's name stands in the ids alone."""
    episodes = artifact.config["episodes"]
    run = next((event.id.rsplit("/", 2)[0] for event in events if event.id), "")
    return {
        episode: [prompt_id(run, episode, index) for index in range(episodes["prompts"])]
        for episode in range(1, episodes["count"] + 1)
    }


def _pair_ids(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)["id"]
    except (OSError, ValueError, KeyError) as error:
        raise ArtifactError(f"{path} cannot be read ({error}); it was cut off or changed") from None
