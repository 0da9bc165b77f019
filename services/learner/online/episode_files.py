"""What a trained episode leaves beside the learner's checkpoints."""

from collections.abc import Sequence
from pathlib import Path

from pairloop.data.v1.pair_pb2 import PreferencePair
from services.learner.online.outcome import write_outcome
from services.learner.online.pair_record import write_pairs
from services.learner.online.ports import Trained
from services.learner.online.rollouts import write_rollouts


def write_episode(
    folder: Path, done: Trained, pairs: Sequence[PreferencePair], record: bool
) -> None:
    """What became of its prompts, its pairs, and with `record` its rollouts. Twice is no harm."""
    write_outcome(folder, done)
    write_pairs(folder, done.episode, pairs)
    if record:
        write_rollouts(folder, done.episode, pairs)
