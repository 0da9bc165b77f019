"""What became of each prompt of an episode: trained, or dropped and why.

A checkpoint holds it of its own episode, and beside the checkpoints there is a file of every one:
where Redis lost more than the last, it is made good from there.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pairloop.data.v1.pair_pb2 import (
    DROP_REASON_NOT_REACHED,
    DROP_REASON_TOO_LONG,
    PreferencePair,
)
from services.errors import ArtifactError
from services.learner.online.ports import Trained
from services.learner.train.durable import replaced_file
from services.learner.train.encoding import EncodedPair
from services.queues.ledger import reason_name


def outcome(
    episode: int,
    kept: Sequence[PreferencePair],
    dropped: Mapping[str, str],
    pairs: Sequence[EncodedPair],
    batches: Sequence[Sequence[int]],
) -> Trained:
    """Of every kept pair, and of the prompts that were dropped before.

    `pairs`: those that are short enough; `batches` index into them.
    """
    reached = {pairs[at].id for batch in batches for at in batch}
    fitting = {pair.id for pair in pairs}
    left_out = {
        pair.id: reason_name(
            DROP_REASON_NOT_REACHED if pair.id in fitting else DROP_REASON_TOO_LONG
        )
        for pair in kept
        if pair.id not in reached
    }
    return Trained(
        episode, [pair.id for pair in kept if pair.id in reached], {**dropped, **left_out}
    )


def outcome_state(done: Trained) -> dict[str, Any]:
    """As a checkpoint keeps it."""
    return {"episode": done.episode, "pairs": list(done.trained), "dropped": dict(done.dropped)}


def restored_outcome(state: Mapping[str, Any]) -> Trained:
    """From a checkpoint's state."""
    return Trained(int(state["episode"]), list(state["pairs"]), dict(state["dropped"]))


def write_outcome(folder: Path, done: Trained) -> None:
    """One episode's file in the learner's folder, whole or not at all."""
    with replaced_file(_path(folder, done.episode)) as file:
        file.write(json.dumps(outcome_state(done)).encode())


def read_outcome(folder: Path, episode: int) -> Trained:
    """Of an episode that a checkpoint holds. Raises ArtifactError when it is missing."""
    path = _path(folder, episode)
    try:
        return restored_outcome(json.loads(path.read_bytes()))
    except (FileNotFoundError, ValueError) as error:
        raise ArtifactError(
            f"{path} is {'missing' if isinstance(error, FileNotFoundError) else 'damaged'}, and"
            f" Redis does not know how episode {episode} ended; begin the stage anew with --fresh"
        ) from error


def _path(folder: Path, episode: int) -> Path:
    return folder / "outcomes" / f"episode-{episode:05d}.json"
