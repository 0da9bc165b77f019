"""Qwen2's tokenizer in small: byte-level BPE on NFC text, three control tokens, ChatML.

Source: the Qwen2 report (arXiv 2407.10671), 2.1, and the published Qwen2 tokenizer files.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from services.data.settings import TokenizerSettings
from services.errors import DataError

END_OF_TEXT = "<|endoftext|>"
CONTROL_TOKENS = (END_OF_TEXT, "<|im_start|>", "<|im_end|>")

# Digits stay single, a space goes with the word after it (Qwen2's own splitting).
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# Unlike Qwen2's own there is no default system prompt: the model sees what the data says.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def train_tokenizer(
    texts: Iterable[str], settings: TokenizerSettings, *, max_length: int = 32_768
) -> Any:
    """A transformers Qwen2 tokenizer with the merges that `texts` give; deterministic.

    Control tokens have the last ids, as in Qwen2. Small texts may give fewer tokens than
    `vocab_size` asks for: `len(tokenizer)` is the true number. <|im_end|> is its end of
    sequence and <|endoftext|> its padding, as in Qwen2's instruct models. Raises DataError
    when there is no text.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocab_size - len(CONTROL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(_some(texts), trainer)
    model = json.loads(backend.to_str())["model"]
    return wrap(model["vocab"], model["merges"], max_length)


def wrap(vocab: dict[str, int], merges: list[list[str]], max_length: int) -> Any:
    """The transformers tokenizer of byte-level BPE entries and merges; control tokens come last."""
    from transformers import AddedToken, Qwen2Tokenizer

    size = len(vocab)
    tokenizer = Qwen2Tokenizer(
        vocab=vocab | {token: size + at for at, token in enumerate(CONTROL_TOKENS)},
        merges=[tuple(merge) for merge in merges],
        unk_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        eos_token="<|im_end|>",  # noqa: S106 - a token of text, not a secret
        extra_special_tokens=[AddedToken("<|im_start|>", special=True)],
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _some(texts: Iterable[str]) -> Iterator[str]:
    empty = True
    for text in texts:
        empty = False
        yield text
    if empty:
        raise DataError("no text to train a tokenizer on; is the file of texts empty?")
