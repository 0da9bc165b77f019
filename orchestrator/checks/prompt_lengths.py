"""Prompts that leave no room for an answer in the engine, found before it starts."""

import functools
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from services.data.settings import DataSource
from services.errors import DataError

_LOOKED_AT = 512
"""Prompts, from the first: a look, not the whole set."""


def check_prompt_lengths(policy: str, prompts: DataSource, room: int) -> None:
    """DataError when each of the first prompts is longer than `room` tokens."""
    lengths = _lengths(policy, prompts)
    if lengths and min(lengths) > room:
        raise DataError(
            f"{prompts.path}: none of the first {len(lengths)} prompts fits: the shortest has"
            f" {min(lengths)} tokens, and {_explained(room)}"
        )


def prompt_length_warnings(policy: str, prompts: DataSource, room: int) -> Sequence[str]:
    """A warning when some of the first prompts are longer than `room` tokens."""
    lengths = _lengths(policy, prompts)
    over = sum(length > room for length in lengths)
    if not over:
        return []
    return [
        f"{over} of the first {len(lengths)} prompts of {prompts.path} have up to {max(lengths)}"
        f" tokens and will be lost to an error: {_explained(room)}"
    ]


def _explained(room: int) -> str:
    return (
        f"engine.max_model_len less max_tokens leaves {room}; raise the one, lower the other, or"
        " take shorter prompts"
    )


def _lengths(policy: str, prompts: DataSource) -> list[int]:
    """Tokens of their messages at least: what the chat template adds is left out.

    Empty where policy or prompts are still to be made or on the hub.
    """
    tokenizer, rows = Path(policy) / "tokenizer.json", Path(prompts.path)
    if not (tokenizer.is_file() and rows.exists()):
        return []
    return _counted(
        tokenizer, prompts, tuple(each.stat().st_mtime_ns for each in (tokenizer, rows))
    )


@functools.cache  # asked for errors, for warnings, and when the job begins
def _counted(tokenizer: Path, prompts: DataSource, written: tuple[int, ...]) -> list[int]:
    # Imported here: most configs are refused without it.
    from tokenizers import Tokenizer

    from services.data.rows import read_prompts

    limit = min(_LOOKED_AT, prompts.limit or _LOOKED_AT)
    rows = islice(read_prompts(prompts.model_copy(update={"limit": limit})), limit)
    texts = ["\n".join(message["content"] for message in row.messages) for row in rows]
    try:
        encoded = Tokenizer.from_file(str(tokenizer)).encode_batch(texts, add_special_tokens=False)
    except Exception:  # noqa: BLE001 - the library raises bare Exceptions; the engine will say
        return []
    return [len(one.ids) for one in encoded]
