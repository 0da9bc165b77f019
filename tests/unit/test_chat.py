from typing import Any

import pytest

from services.data.chat import (
    encode_answer,
    encode_dialogue,
    end_of_answer_id,
    render_prompt,
    tokenizer_fingerprint,
)
from services.data.settings import TokenizerSettings
from services.data.tokenizer import train_tokenizer
from services.errors import DataError

TEXTS = ["Copy these words: red blue green.\n\nA second text, 1234 digits."] * 3
SYSTEM = {"role": "system", "content": "Be short."}
ASK = {"role": "user", "content": "Copy: red  blue\n"}
# An answer that begins with a line break would merge with the template's own if tokenized whole.
ANSWER = {"role": "assistant", "content": "\nred blue"}
AGAIN = {"role": "user", "content": "again"}
SECOND = {"role": "assistant", "content": "assistant"}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(TEXTS, TokenizerSettings(vocab_size=300))


def test_prompt_ends_with_the_generation_prompt(tokenizer: Any) -> None:
    text, ids = render_prompt(tokenizer, [ASK])
    assert text == "<|im_start|>user\nCopy: red  blue\n<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(ids) == text


def test_one_turn_is_prompt_and_answer(tokenizer: Any) -> None:
    prompt = render_prompt(tokenizer, [SYSTEM, ASK])[1]
    answer = encode_answer(tokenizer, ANSWER["content"])
    ids, mask = encode_dialogue(tokenizer, [SYSTEM, ASK, ANSWER])
    assert ids == prompt + answer
    assert mask == [0] * len(prompt) + [1] * len(answer)
    assert ids[-1] == end_of_answer_id(tokenizer)


def test_every_answer_of_a_dialogue_is_learned(tokenizer: Any) -> None:
    ids, mask = encode_dialogue(tokenizer, [SYSTEM, ASK, ANSWER, AGAIN, SECOND])
    learned = [token for token, keep in zip(ids, mask, strict=True) if keep]
    assert tokenizer.decode(learned) == "\nred blue<|im_end|>assistant<|im_end|>"
    whole = tokenizer.apply_chat_template([SYSTEM, ASK, ANSWER, AGAIN, SECOND], tokenize=False)
    assert tokenizer.decode(ids) == whole.rstrip()


def test_messages_after_the_last_answer_are_left_out(tokenizer: Any) -> None:
    assert encode_dialogue(tokenizer, [ASK, ANSWER, AGAIN]) == encode_dialogue(
        tokenizer, [ASK, ANSWER]
    )


def test_template_that_rewrites_history_is_refused() -> None:
    tokenizer = train_tokenizer(TEXTS, TokenizerSettings(vocab_size=300))
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'user' or loop.last %}"
        "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    assert encode_dialogue(tokenizer, [ASK, ANSWER])[1][-1] == 1
    with pytest.raises(DataError, match="rewrites the turns"):
        encode_dialogue(tokenizer, [ASK, ANSWER, AGAIN, SECOND])


def test_no_template() -> None:
    tokenizer = train_tokenizer(TEXTS, TokenizerSettings(vocab_size=300))
    tokenizer.chat_template = None
    with pytest.raises(DataError, match="no chat template"):
        render_prompt(tokenizer, [ASK])


def test_fingerprint_follows_what_changes_ids(tokenizer: Any) -> None:
    same = train_tokenizer(TEXTS, TokenizerSettings(vocab_size=300))
    assert tokenizer_fingerprint(same) == tokenizer_fingerprint(tokenizer)
    same.add_tokens(["<|extra|>"])
    template = train_tokenizer(TEXTS, TokenizerSettings(vocab_size=300))
    template.chat_template += " "
    merges = train_tokenizer(["other other words words"], TokenizerSettings(vocab_size=300))
    prints = {tokenizer_fingerprint(each) for each in (tokenizer, same, template, merges)}
    assert len(prints) == 4
