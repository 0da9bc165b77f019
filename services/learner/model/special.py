"""The token ids that mean something to a model: what ends an answer, what pads."""

from typing import Any


def special_ids(tokenizer: Any) -> tuple[list[int], int]:
    """Ids that end an answer (<|im_end|>, <|endoftext|>) and the padding id."""
    vocabulary = tokenizer.get_vocab()
    ends = [vocabulary[name] for name in ("<|im_end|>", "<|endoftext|>") if name in vocabulary]
    ends = ends or [tokenizer.eos_token_id]
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else ends[-1]
    return [int(token) for token in ends], int(pad)
