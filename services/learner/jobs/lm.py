"""Language-model training: pre-training on texts and SFT on dialogues."""

from typing import Any

from services.data.rows import read_conversations, read_texts
from services.data.settings import DataSource
from services.learner.jobs.evaluate_lm import heldout_loss, text_rows
from services.learner.jobs.specs import LMSpec
from services.learner.losses.objectives import LanguageModelling
from services.learner.model.load import load_policy, load_tokenizer, new_model, special_ids
from services.learner.train.batches import pack
from services.learner.train.distributed import Worker
from services.learner.train.encoding import EncodedText, encode_conversations, encode_rows
from services.learner.train.loop import Report
from services.learner.train.offline import finish, prepared, run_offline


def train_lm(spec: LMSpec, report: Report) -> dict[str, float]:
    """Train and write the model to `spec.out`; returns its metrics.

    loss and grad_norm (last tenth of the steps), examples, steps, tokens, seconds, and with a
    held-out source heldout_loss (nats a token) and heldout_tokens.
    """
    worker = Worker.current(spec.train.num_gpus)
    tokenizer = load_tokenizer(spec.tokenizer or str(spec.policy))
    _, pad = special_ids(tokenizer)
    if spec.shape is not None:
        model: Any = new_model(spec.shape, tokenizer, spec.seed)
    else:
        model = load_policy(str(spec.policy))
    model = prepared(model, spec.train, worker)
    examples = _training_examples(spec, tokenizer)
    result = run_offline(
        model,
        LanguageModelling(model, pad, spec.train.dtype),
        examples,
        spec.train,
        stage=spec.stage,
        seed=spec.seed,
        tau=None,
        worker=worker,
        report=report,
    )
    heldout = {"examples": float(len(examples))}
    if spec.heldout is not None:
        loss, tokens = heldout_loss(
            model, _heldout_examples(spec, tokenizer, spec.heldout), pad, spec.train.dtype, worker
        )
        heldout |= {"heldout_loss": loss, "heldout_tokens": float(tokens)}
    return finish(model, tokenizer, spec.out, result, heldout, worker)


def _training_examples(spec: LMSpec, tokenizer: Any) -> list[EncodedText]:
    if spec.conversations is not None:
        return _dialogues(spec, tokenizer, spec.conversations)
    assert spec.texts is not None  # noqa: S101 - the spec's validator says so
    texts = tokenizer(read_texts(spec.texts), add_special_tokens=False)["input_ids"]
    ends, pad = special_ids(tokenizer)
    separator = tokenizer.get_vocab().get("<|endoftext|>", ends[-1] if ends else pad)
    return encode_rows(pack(texts, separator, spec.sequence_length))


def _heldout_examples(spec: LMSpec, tokenizer: Any, source: DataSource) -> list[EncodedText]:
    if spec.conversations is not None:
        return _dialogues(spec, tokenizer, source)
    return text_rows(tokenizer, read_texts(source), spec.sequence_length)


def _dialogues(spec: LMSpec, tokenizer: Any, source: DataSource) -> list[EncodedText]:
    return encode_conversations(tokenizer, read_conversations(source), spec.train.max_length)
