"""The last phase of pre-training: longer rows at a larger RoPE base (arXiv 2407.10671, 3.2)."""

from typing import Any

from services.learner.jobs.settings import ContextExtension, PretrainSettings
from services.learner.model.rope import set_rope
from services.learner.train.documents import PackedRows
from services.learner.train.encoding import EncodedRow
from services.learner.train.offline import LaterPhase
from services.telemetry.record.events import Note


def extension_phase(
    model: Any, rows: PackedRows, longer: ContextExtension, settings: PretrainSettings
) -> LaterPhase[EncodedRow]:
    """The phase on `rows`; as it begins the model gets its base and its positions."""
    same_tokens = settings.train.batch_size * settings.sequence_length / longer.sequence_length
    return LaterPhase(
        rows.rows,
        steps=lambda before: longer.max_steps or max(1, round(longer.share * before)),
        batch_size=longer.batch_size or max(1, round(same_tokens)),
        begin=lambda: set_rope(model, longer.rope_theta, longer.sequence_length),
    )


def stretch(model: Any, longer: ContextExtension | None) -> None:
    """Give the finished model the positions that YaRN stretches it to, if it is to have them."""
    if longer is not None and longer.yarn_factor > 1.0:
        set_rope(model, longer.rope_theta, longer.sequence_length, longer.yarn_factor)


def said_of(rows: PackedRows, before: int, stage: str) -> list[Note]:
    """What rows of longer contexts hold, and whether they can teach any.

    Documents do not see each other, so only one longer than the `before` tokens of the earlier
    rows has positions that were not trained yet.
    """
    share = rows.share_beyond(before)
    if share:
        text = (
            f"context extension: {rows}; {share:.1%} of the tokens are in texts longer than"
            f" {before:,}, and only those teach longer contexts"
        )
        return [Note(stage=stage, text=text)]
    text = (
        f"context extension: no text is longer than the {before:,} tokens of the rows before, so it"
        " teaches nothing about longer contexts; give longer ones: context_extension.texts.path=..."
    )
    return [Note(stage=stage, text=text, level="warning")]
