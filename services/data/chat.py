"""Messages to token ids and back to what a loss needs, by the tokenizer's own chat template."""

import hashlib
import json
from typing import Any

from services.data.rows import Messages
from services.errors import ArtifactError, DataError, one_line

END_OF_ANSWER = "<|im_end|>"


def load_tokenizer(source: str) -> Any:
    """The transformers tokenizer of a folder or hub name. ArtifactError when there is none.

    Imports transformers, and torch with it: for processes that have both anyway.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{source}: no tokenizer ({one_line(error)})") from error


def end_of_answer_id(tokenizer: Any) -> int:
    """Id of the token that ends an answer: <|im_end|>, or the tokenizer's own end of sequence."""
    found = tokenizer.get_vocab().get(END_OF_ANSWER, tokenizer.eos_token_id)
    if found is None:
        raise DataError("the tokenizer has neither <|im_end|> nor an end-of-sequence token")
    return int(found)


def render_prompt(tokenizer: Any, messages: Messages) -> tuple[str, list[int]]:
    """Text and token ids of a prompt, with the generation prompt an answer follows."""
    text = _render(tokenizer, messages, generation=True)
    return text, _ids(tokenizer, text)


def encode_answer(tokenizer: Any, answer: str) -> list[int]:
    """Token ids of an answer as a policy would have sampled it, with the token that ends it."""
    return [*_ids(tokenizer, answer), end_of_answer_id(tokenizer)]


def encode_dialogue(tokenizer: Any, messages: Messages) -> tuple[list[int], list[int]]:
    """Token ids of a dialogue and its loss mask, both of the same length.

    The mask is 1 on the assistant's tokens and on the <|im_end|> after them. What comes before
    an answer and the answer are tokenized apart, as they are when a policy answers a rendered
    prompt: `ids == render_prompt(prompt) + encode_answer(answer)` for one turn. Messages after
    the last answer are left out. Raises DataError when the template renders an earlier turn
    differently once later ones follow, for then no position belongs to an answer for sure.
    """
    ids: list[int] = []
    mask: list[int] = []
    done = ""
    for at, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt = _render(tokenizer, messages[:at], generation=True)
        full = _render(tokenizer, messages[: at + 1], generation=False)
        if not (prompt.startswith(done) and full.startswith(prompt)):
            raise DataError(
                f"the chat template rewrites the turns before message {at}; "
                "split the dialogue into one row an answer, or use another template"
            )
        before = _ids(tokenizer, prompt[len(done) :])
        answer, done = _answer_part(tokenizer, full, len(prompt))
        ids += before + answer
        mask += [0] * len(before) + [1] * len(answer)
    return ids, mask


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """Hash of the vocabulary, merges, added tokens, normaliser, splitting and chat template.

    Equal for two tokenizers that turn the same messages into the same ids, whatever folder
    they were loaded from.
    """
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    parts = {
        "vocabulary": sorted(tokenizer.get_vocab().items()),
        "merges": backend["model"].get("merges"),
        "added": [[token["id"], token["content"]] for token in backend["added_tokens"]],
        "normalizer": backend["normalizer"],
        "pre_tokenizer": backend["pre_tokenizer"],
        "chat_template": tokenizer.chat_template,
    }
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _answer_part(tokenizer: Any, full: str, start: int) -> tuple[list[int], str]:
    """Ids of the answer that starts at `start`, and the rendered text up to the answer's end."""
    end = end_of_answer_id(tokenizer)
    token = tokenizer.convert_ids_to_tokens(end)
    answer = full[start:].rstrip()
    if not answer.endswith(token):
        return [*_ids(tokenizer, full[start:]), end], full
    return [*_ids(tokenizer, answer[: -len(token)]), end], full[:start] + answer


def _render(tokenizer: Any, messages: Messages, *, generation: bool) -> str:
    if not tokenizer.chat_template:
        raise DataError("the tokenizer has no chat template; use an instruct model's tokenizer")
    text: str = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=generation
    )
    return text


def _ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids
