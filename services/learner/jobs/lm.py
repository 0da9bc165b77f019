"""Language-model training: pre-training on texts and SFT on dialogues."""

from collections.abc import Sequence
from typing import Any

from services.data.chat import load_tokenizer
from services.data.rows import read_conversations, read_texts
from services.learner.jobs.evaluate_lm import heldout_loss, text_rows
from services.learner.jobs.settings import Place, PretrainSettings, SFTSettings
from services.learner.losses.objectives import LanguageModelling
from services.learner.model.load import load_policy, new_model
from services.learner.model.policy import Policy
from services.learner.model.special import special_ids
from services.learner.settings import TrainSettings
from services.learner.train.batches import pack
from services.learner.train.distributed import Worker
from services.learner.train.encoding import EncodedText, encode_conversations, encode_rows
from services.learner.train.loop import Report
from services.learner.train.offline import finish, prepared, run_offline


def train_base(settings: PretrainSettings, place: Place, report: Report) -> dict[str, float]:
    """Train a new model on texts with the tokenizer in a folder; write it to `place.out`.

    Returns loss and grad_norm (last tenth of the steps), examples, steps, tokens, seconds, and
    with a held-out source heldout_loss (nats a token) and heldout_tokens.
    """
    worker = Worker.current(settings.train.num_gpus)
    tokenizer = load_tokenizer(str(settings.tokenizer))
    ends, pad = special_ids(tokenizer)
    module = prepared(new_model(settings.model, tokenizer, place.seed), settings.train, worker)
    policy = Policy(module, settings.train.dtype)
    texts = tokenizer(read_texts(settings.texts), add_special_tokens=False)["input_ids"]
    separator = tokenizer.get_vocab().get("<|endoftext|>", ends[-1] if ends else pad)
    examples = encode_rows(pack(texts, separator, settings.sequence_length))
    held: list[EncodedText] = []
    if settings.heldout is not None:
        held = text_rows(tokenizer, read_texts(settings.heldout), settings.sequence_length)
    return _train(policy, tokenizer, examples, held, settings.train, place, worker, report)


def train_sft(settings: SFTSettings, place: Place, report: Report) -> dict[str, float]:
    """Train a policy further on the assistant's tokens; as `train_base`, nothing held out."""
    worker = Worker.current(settings.train.num_gpus)
    tokenizer = load_tokenizer(settings.policy)
    module = prepared(load_policy(settings.policy), settings.train, worker)
    policy = Policy(module, settings.train.dtype)
    dialogues = read_conversations(settings.demonstrations)
    examples = encode_conversations(tokenizer, dialogues, settings.train.max_length)
    return _train(policy, tokenizer, examples, [], settings.train, place, worker, report)


def _train(
    policy: Policy,
    tokenizer: Any,
    examples: Sequence[EncodedText],
    held: Sequence[EncodedText],
    train: TrainSettings,
    place: Place,
    worker: Worker,
    report: Report,
) -> dict[str, float]:
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
    )
    metrics = {"examples": float(len(examples))}
    if held:
        loss, tokens = heldout_loss(policy, held, worker)
        metrics |= {"heldout_loss": loss, "heldout_tokens": float(tokens)}
    return finish(policy, tokenizer, place.out, result, metrics, worker)
