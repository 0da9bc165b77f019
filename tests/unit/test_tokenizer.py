from pathlib import Path

import pytest

from services.data.chat import tokenizer_fingerprint
from services.data.settings import TokenizerSettings
from services.data.tokenizer import CONTROL_TOKENS, train_tokenizer
from services.errors import DataError

TEXTS = [
    "The quick brown fox jumps over the lazy dog; the dog sleeps.",
    "def quick(brown: int) -> int:\n    return brown + 12345\n",
] * 4


def test_size_control_tokens_and_ends() -> None:
    tokenizer = train_tokenizer(TEXTS, TokenizerSettings(vocab_size=310))
    assert len(tokenizer) == 310
    assert [tokenizer.get_vocab()[token] for token in CONTROL_TOKENS] == [307, 308, 309]
    assert (tokenizer.pad_token, tokenizer.eos_token) == ("<|endoftext|>", "<|im_end|>")


@pytest.mark.parametrize(
    "text", ["  two spaces\n\n\ttab", "naïve café 数字 😀", "x==1;//", "12 34"]
)
def test_any_text_comes_back(text: str) -> None:
    tokenizer = train_tokenizer(TEXTS, TokenizerSettings(vocab_size=310))
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_qwen2_splitting_and_nfc() -> None:
    tokenizer = train_tokenizer(TEXTS, TokenizerSettings(vocab_size=400))
    assert tokenizer.tokenize("12345") == ["1", "2", "3", "4", "5"]
    assert tokenizer.encode("e\u0301") == tokenizer.encode("\u00e9")
    assert tokenizer.encode("<|im_end|>") == [len(tokenizer) - 1]


def test_deterministic_and_survives_a_round_trip(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    first = train_tokenizer(TEXTS, TokenizerSettings(vocab_size=320))
    second = train_tokenizer(iter(TEXTS), TokenizerSettings(vocab_size=320))
    first.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert type(loaded) is type(first)
    assert (loaded.pad_token_id, loaded.eos_token_id) == (first.pad_token_id, first.eos_token_id)
    prints = {tokenizer_fingerprint(each) for each in (first, second, loaded)}
    assert len(prints) == 1


def test_no_text_is_an_error() -> None:
    with pytest.raises(DataError, match="no text"):
        train_tokenizer([], TokenizerSettings(vocab_size=300))
