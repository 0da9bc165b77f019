"""What became of each pair of an episode: trained, or left out and why. A checkpoint holds it."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from pairloop.data.v1.pair_pb2 import (
    DROP_REASON_NOT_REACHED,
    DROP_REASON_TOO_LONG,
    DropReason,
    PreferencePair,
)
from services.learner.online.ports import Trained
from services.learner.train.encoding import EncodedPair


def outcome(
    episode: int,
    kept: Sequence[PreferencePair],
    pairs: Sequence[EncodedPair],
    batches: Sequence[Sequence[int]],
) -> Trained:
    """Of every kept pair: `pairs` are those that are short enough, `batches` index into them."""
    reached = {pairs[at].id for batch in batches for at in batch}
    fitting = {pair.id for pair in pairs}
    return Trained(
        episode,
        [pair.id for pair in kept if pair.id in reached],
        {
            pair.id: DROP_REASON_NOT_REACHED if pair.id in fitting else DROP_REASON_TOO_LONG
            for pair in kept
            if pair.id not in reached
        },
    )


def outcome_state(done: Trained) -> dict[str, Any]:
    """As a checkpoint keeps it, beside "episode"."""
    left_out = {id_: DropReason.Name(reason) for id_, reason in done.left_out.items()}
    return {"pairs": list(done.trained), "left_out": left_out}


def restored_outcome(state: Mapping[str, Any]) -> Trained:
    """From a checkpoint's state."""
    left_out = {
        str(id_): cast(DropReason, DropReason.Value(name))
        for id_, name in state["left_out"].items()
    }
    return Trained(int(state["episode"]), list(state["pairs"]), left_out)
