"""Language-model training: pre-training on texts and SFT on dialogues."""

from collections.abc import Callable, Sequence
from typing import Any

from services.data.chat import load_tokenizer
from services.data.rows import read_conversations, read_texts
from services.data.settings import DataSource
from services.learner.jobs.context_extension import extension_phase, said_of, stretch
from services.learner.jobs.evaluate_lm import heldout_loss, text_rows
from services.learner.jobs.settings import Place, PretrainSettings, SFTSettings
from services.learner.losses.objectives import LanguageModelling
from services.learner.model.load import load_policy, new_model
from services.learner.model.policy import Policy
from services.learner.model.special import special_ids
from services.learner.settings import TrainSettings
from services.learner.train.distributed import Worker
from services.learner.train.documents import PackedRows, pack_documents
from services.learner.train.encoding import EncodedRow, EncodedText, Text, encode_conversations
from services.learner.train.loop import Report
from services.learner.train.offline import LaterPhase, finish, prepared, run_offline
from services.telemetry.record.events import Note


def train_base(settings: PretrainSettings, place: Place, report: Report) -> dict[str, float]:
    """Train a new model on texts with the tokenizer in a folder; write it to `place.out`.

    Returns loss and grad_norm (last tenth of the steps), examples (rows), row_fill (tokens over
    those the rows can hold), cut_texts (longer than a row), steps, tokens, seconds; with a held-out
    source heldout_loss (nats a token) and heldout_tokens; with a context extension long_rows and
    long_share (of their tokens, those in texts longer than the rows before).
    """
    worker = Worker.current(settings.train.num_gpus)
    tokenizer = load_tokenizer(str(settings.tokenizer))
    module = prepared(new_model(settings.model, tokenizer, place.seed), settings.train, worker)
    policy = Policy(module, settings.train.dtype)
    before, longer = settings.sequence_length, settings.context_extension
    rows = _packed(tokenizer, settings.texts, before)
    metrics = {"row_fill": rows.fill, "cut_texts": float(rows.cut)}
    notes = [Note(stage=place.stage, text=str(rows))]
    later: LaterPhase[EncodedRow] | None = None
    if longer is not None:
        long = _packed(tokenizer, longer.texts or settings.texts, longer.sequence_length)
        later = extension_phase(module, long, longer, settings)
        metrics["long_rows"] = float(len(long.rows))
        metrics["long_share"] = long.share_beyond(before)
        notes += said_of(long, before, place.stage)
    for note in notes if worker.is_main else []:
        report(note)
    held: list[EncodedText] = []
    if settings.heldout is not None:
        length = before if longer is None else longer.sequence_length
        held = text_rows(tokenizer, read_texts(settings.heldout), length)
    return metrics | _train(
        policy,
        tokenizer,
        rows.rows,
        held,
        settings.train,
        place,
        worker,
        report,
        later=later,
        trained=lambda: stretch(module, longer),
    )


def train_sft(settings: SFTSettings, place: Place, report: Report) -> dict[str, float]:
    """Train a policy further on the assistant's tokens; as `train_base`, nothing held out."""
    worker = Worker.current(settings.train.num_gpus)
    tokenizer = load_tokenizer(settings.policy)
    module = prepared(load_policy(settings.policy), settings.train, worker)
    policy = Policy(module, settings.train.dtype)
    dialogues = read_conversations(settings.demonstrations)
    examples = encode_conversations(tokenizer, dialogues, settings.train.max_length)
    return _train(policy, tokenizer, examples, [], settings.train, place, worker, report)


def _packed(tokenizer: Any, source: DataSource, length: int) -> PackedRows:
    """Rows of a source's texts, each closed by <|endoftext|>."""
    ends, pad = special_ids(tokenizer)
    end = tokenizer.get_vocab().get("<|endoftext|>", ends[-1] if ends else pad)
    texts = tokenizer(read_texts(source), add_special_tokens=False)["input_ids"]
    return pack_documents(texts, end, length)


def _train(
    policy: Policy,
    tokenizer: Any,
    examples: Sequence[Text],
    held: Sequence[EncodedText],
    train: TrainSettings,
    place: Place,
    worker: Worker,
    report: Report,
    *,
    later: LaterPhase[Text] | None = None,
    trained: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """`trained` is called after the last step, before what is held out is measured."""
    result = run_offline(
        policy,
        tokenizer,
        LanguageModelling(policy),
        examples,
        train,
        place,
        tau=None,
        worker=worker,
        report=report,
        later=later,
    )
    trained()
    metrics = {"examples": float(len(examples))}
    if held:
        loss, tokens = heldout_loss(policy, held, worker)
        metrics |= {"heldout_loss": loss, "heldout_tokens": float(tokens)}
    return finish(policy, tokenizer, place.out, result, metrics, worker)
