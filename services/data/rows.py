"""The four kinds of rows that jobs read: texts, conversations, prompts and preference pairs.

Plain and conversational forms are accepted, the column names are those TRL and the hub's usual
sets have; docs of each reader say which. Other columns that hold strings or numbers, and the
entries of a column `metadata`, become `metadata` (strings). A list in `answer` or `answers`, right
answers any of which will do, becomes `answers`, a JSON text.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeVar

from services.data.settings import DataSource
from services.data.sources import files_of, raw_rows
from services.errors import DataError

Messages = list[dict[str, str]]
Kind = Literal["texts", "conversations", "prompts", "pairs"]

_ROLES = ("system", "user", "assistant", "tool")
_Row = TypeVar("_Row")


@dataclass(frozen=True)
class PromptRow:
    """A prompt to answer: messages up to the user's (or a tool's) last one."""

    messages: Messages
    metadata: dict[str, str]


@dataclass(frozen=True)
class Conversation:
    """A whole dialogue with at least one assistant message."""

    messages: Messages
    metadata: dict[str, str]


@dataclass(frozen=True)
class PairRow:
    """A prompt (`messages`), the answer that was preferred and the one that was not."""

    messages: Messages
    chosen: str
    rejected: str
    metadata: dict[str, str]


def read_texts(source: DataSource) -> list[str]:
    """Texts from the column `text` or `content`. Raises DataError with file and line."""
    return list(_parsed(source, _text))


def read_conversations(source: DataSource) -> list[Conversation]:
    """Dialogues from `messages`, or from `prompt` with `completion` or `response`.

    Raises DataError with file and line.
    """
    return list(_parsed(source, _conversation))


def read_prompts(source: DataSource) -> list[PromptRow]:
    """Prompts from `prompt` (a string or messages) or `messages`.

    An assistant's message at the very end is left out, so that demonstrations can be read as
    prompts. Raises DataError with file and line.
    """
    return list(_parsed(source, _prompt))


def read_pairs(source: DataSource) -> list[PairRow]:
    """Pairs from `prompt` (or `messages`), `chosen` and `rejected`.

    The answers are strings, or message lists: the last message alone, or the full
    conversation, which then differs in its last message only. Raises DataError with file and
    line.
    """
    return list(_parsed(source, _pair))


def check_rows(source: DataSource, kind: Kind) -> int:
    """Number of rows of a source, each checked as its reader would.

    A hub dataset is not fetched for that: 0. Raises DataError with file and line.
    """
    if not files_of(source.path):
        return 0
    parsers: dict[Kind, Callable[[_Cells], object]] = {
        "texts": _text,
        "conversations": _conversation,
        "prompts": _prompt,
        "pairs": _pair,
    }
    return sum(1 for _ in _parsed(source, parsers[kind]))


class _Cells:
    """One row while it is being read; whatever is not taken ends up in metadata."""

    def __init__(self, where: str, columns: dict[str, object], field: str | None) -> None:
        self.where = where
        self.field = field
        self._columns = columns
        self._taken: set[str] = set()

    def take(self, *names: str, required: bool = True) -> tuple[str, object]:
        """Name and value of the first of the columns that is there; ("", None) for none."""
        for name in names:
            if self._columns.get(name) is not None:
                self._taken.add(name)
                return name, self._columns[name]
        if not required:
            return "", None
        wanted = " or ".join(f"'{name}'" for name in names)
        there = ", ".join(self._columns) or "none"
        raise self.error(f"no column {wanted}; the columns are: {there}")

    def text(self, name: str, value: object, *, blank: bool = False) -> str:
        """A string that can be written as UTF-8; without `blank` one that is not blank."""
        if not isinstance(value, str):
            raise self.error(f"'{name}' must be a string, this is {type(value).__name__}")
        if not blank and not value.strip():
            raise self.error(f"'{name}' is empty")
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise self.error(f"'{name}' holds half a surrogate pair") from error
        return value

    def messages(self, name: str, value: object, *, blank: bool = False) -> Messages:
        """A list of {role, content}; `blank` allows contents that are empty."""
        if not isinstance(value, list) or not value:
            raise self.error(f"'{name}' must be a list of messages with role and content")
        return [self._message(f"{name}[{at}]", message, blank) for at, message in enumerate(value)]

    def _message(self, name: str, message: object, blank: bool) -> dict[str, str]:
        if not isinstance(message, dict):
            raise self.error(f"'{name}' must be an object with role and content")
        role = message.get("role")
        if role not in _ROLES:
            raise self.error(f"'{name}.role' must be one of {', '.join(_ROLES)}, not {role!r}")
        content = self.text(f"{name}.content", message.get("content"), blank=blank)
        return {"role": role, "content": content}

    def turns(self, name: str, value: object) -> Messages:
        """Messages, or the one user message that a string stands for."""
        if isinstance(value, str):
            return [{"role": "user", "content": self.text(name, value)}]
        if not isinstance(value, list):
            raise self.error(f"'{name}' must be a text or a list of messages")
        return self.messages(name, value)

    def metadata(self) -> dict[str, str]:
        """Strings and numbers of the columns that were not taken."""
        rest = {name: cell for name, cell in self._columns.items() if name not in self._taken}
        inner = rest.pop("metadata", None)
        if isinstance(inner, dict):
            rest |= inner
        plain = str | int | float
        for name in ("answer", "answers"):
            right = rest.get(name)
            if isinstance(right, list) and right and all(isinstance(one, plain) for one in right):
                del rest[name]
                rest["answers"] = json.dumps([str(one) for one in right], ensure_ascii=False)
        return {name: str(cell) for name, cell in rest.items() if isinstance(cell, plain)}

    def error(self, what: str) -> DataError:
        return DataError(f"{self.where}: {what}")


def _parsed(source: DataSource, parse: Callable[[_Cells], _Row]) -> Iterator[_Row]:
    for where, columns in raw_rows(source):
        yield parse(_Cells(where, columns, source.field))


def _names(row: _Cells, *usual: str) -> tuple[str, ...]:
    return (row.field,) if row.field else usual


def _text(row: _Cells) -> str:
    return row.text(*row.take(*_names(row, "text", "content")))


def _conversation(row: _Cells) -> Conversation:
    name, value = row.take(*_names(row, "messages", "prompt"))
    messages = row.turns(name, value)
    if name == "prompt" or isinstance(value, str):
        answer = row.turns(*row.take("completion", "response"))
        messages += [{"role": "assistant", "content": answer[-1]["content"]}]
    if not any(message["role"] == "assistant" for message in messages):
        raise row.error(f"'{name}' holds no assistant message to learn from")
    return Conversation(messages, row.metadata())


def _prompt(row: _Cells) -> PromptRow:
    name, value = row.take(*_names(row, "prompt", "messages"))
    messages = row.turns(name, value)
    if messages[-1]["role"] == "assistant":
        messages = messages[:-1]
    if not messages or messages[-1]["role"] not in ("user", "tool"):
        raise row.error(f"'{name}' does not end with a message to answer")
    return PromptRow(messages, row.metadata())


def _pair(row: _Cells) -> PairRow:
    chosen_name, chosen = row.take("chosen")
    rejected_name, rejected = row.take("rejected")
    # A conversational pair may carry its prompt inside the answers alone.
    inside = isinstance(chosen, list) and len(chosen) > 1
    name, value = row.take(*_names(row, "prompt", "messages"), required=not inside)
    prompt = row.turns(name, value) if value is not None else []
    chosen_prompt, chosen_answer = _answer(row, prompt, chosen_name, chosen)
    rejected_prompt, rejected_answer = _answer(row, prompt, rejected_name, rejected)
    if chosen_prompt != rejected_prompt:
        raise row.error("'chosen' and 'rejected' must differ in their last message only")
    return PairRow(chosen_prompt, chosen_answer, rejected_answer, row.metadata())


def _answer(row: _Cells, prompt: Messages, name: str, value: object) -> tuple[Messages, str]:
    # A policy may well end an answer at once: an empty one can be rejected, or even preferred.
    if isinstance(value, str):
        return prompt, row.text(name, value, blank=True)
    *before, last = row.messages(name, value, blank=True)
    if last["role"] != "assistant":
        raise row.error(f"'{name}' must end with an assistant message")
    return before or prompt, last["content"]
