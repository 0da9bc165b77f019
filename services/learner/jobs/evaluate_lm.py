"""The held-out language-model loss of a policy."""

from collections.abc import Sequence
from typing import Any

from services.data.chat import load_tokenizer
from services.data.rows import read_texts
from services.data.settings import DataSource
from services.learner.losses.objectives import LanguageModelling
from services.learner.model.load import load_frozen
from services.learner.model.policy import TokenLogProbs
from services.learner.train.distributed import Worker
from services.learner.train.encoding import EncodedText, Text, encode_rows
from services.learner.train.loop import evaluate_sums


def text_rows(tokenizer: Any, texts: Sequence[str], length: int) -> list[EncodedText]:
    """Texts one a row (cut at `length` tokens), for an evaluation that loses none."""
    rows = []
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=False)[:length]
        if len(ids) > 1:
            rows.append(ids)
    return encode_rows(rows)


def heldout_loss(
    policy: TokenLogProbs, examples: Sequence[Text], worker: Worker
) -> tuple[float, int]:
    """Mean cross-entropy in nats a learnt token, and their number; (nan, 0) of nothing."""
    tokens = sum(example.learnt for example in examples)
    if not tokens:
        return float("nan"), 0
    means = evaluate_sums(LanguageModelling(policy), examples, worker)
    return means["loss"], tokens


def evaluate_texts(policy: str, texts: DataSource, num_gpus: float = 0.0) -> tuple[float, int]:
    """`heldout_loss` of the policy in a folder over a source of texts."""
    worker = Worker.current(num_gpus)
    tokenizer = load_tokenizer(policy)
    frozen = load_frozen(policy, "float32", worker.device)
    length = int(getattr(frozen.config, "max_position_embeddings", 2048))
    rows = text_rows(tokenizer, read_texts(texts), min(length, 2048))
    return heldout_loss(frozen, rows, worker)
