"""Prompts that kept failing, written where a person finds them.

dead/episode-00003.jsonl    of an episode that is over: Redis has them no more
dead_letters.jsonl          all of them
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError

from pairloop.data.v1.rollout_pb2 import Prompt, Rollout
from services.learner.train.durable import replaced_file
from services.queues.items import DeadLetter

DEAD_LETTERS = "dead_letters.jsonl"
"""One JSON object a line: stream, prompt_id, episode, failures, deaths, error, and the item itself
as `prompt` or `rollout`, where it is there; `payload` in hexadecimal where it is no message."""
_KEPT = "dead"


def keep_dead_letters(folder: Path, episode: int, letters: Sequence[DeadLetter]) -> None:
    """Those of an episode, which Redis may then forget."""
    _write(
        _lines([letter for letter in letters if letter.episode == episode]), _of(folder, episode)
    )


def join_dead_letters(folder: Path, letters: Sequence[DeadLetter], path: Path) -> int:
    """All into one file: what was kept, and what Redis still has. How many; none make no file.

    An episode that Redis fell back into after it was over counts once, as Redis has it.
    """
    again = {_of(folder, letter.episode) for letter in letters}
    kept = [file for file in sorted((folder / _KEPT).glob("*.jsonl")) if file not in again]
    lines = [line for file in kept for line in file.read_text(encoding="utf-8").splitlines()]
    lines += _lines(letters)
    _write(lines, path)
    return len(lines)


def _of(folder: Path, episode: int) -> Path:
    return folder / _KEPT / f"episode-{episode:05d}.jsonl"


def _write(lines: Sequence[str], path: Path) -> None:
    """The file as a whole, or as it was."""
    if lines:
        with replaced_file(path) as file:
            file.write("".join(line + "\n" for line in lines).encode())


def _lines(letters: Sequence[DeadLetter]) -> list[str]:
    return [json.dumps(_row(letter)) for letter in letters]


def _row(letter: DeadLetter) -> dict[str, Any]:
    row = asdict(letter)
    payload: bytes = row.pop("payload")
    if not payload:
        return row
    kind, name = (Prompt, "prompt") if letter.stream == "prompts" else (Rollout, "rollout")
    try:
        message = kind.FromString(payload)
    except DecodeError:
        return row | {"payload": payload.hex()}
    return row | {name: MessageToDict(message, preserving_proto_field_name=True)}
