"""What a setting can name that a job reads: the marks of models, tokenizers, rows, rollouts and
functions.

    policy: ModelPath                                   a model folder, hub name or "@stage"
    pairs: Annotated[DataSource, Rows("pairs")]         rows of one kind

Preflight checks what is marked so, a fingerprint counts it by its content and not by its name, and
the artifact records it as a parent. A mark is declared once, on the field.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

RowKind = Literal["texts", "conversations", "prompts", "pairs"]


@dataclass(frozen=True)
class Model:
    """A Hugging Face model: folder or hub name."""

    kind: Literal["policy", "reward model"] = "policy"


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer: folder or hub name."""


@dataclass(frozen=True)
class Rows:
    """A DataSource with rows of one kind (services/data/rows.py)."""

    kind: RowKind


@dataclass(frozen=True)
class Rollouts:
    """What an online run recorded: its artifact, or the folder rollouts/ in it."""


@dataclass(frozen=True)
class Function:
    """A Python function by its import path, "package.module:function"."""


Mark = Model | Tokenizer | Rows | Rollouts | Function

ModelPath = Annotated[str, Model()]
RewardModelPath = Annotated[str, Model("reward model")]
OptionalModelPath = Annotated[str | None, Model()]
