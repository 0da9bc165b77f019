"""Prompts that kept failing, written where a person finds them."""

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
as `prompt` or `rollout`; `payload` in hexadecimal where it cannot be read."""


def write_dead_letters(letters: Sequence[DeadLetter], path: Path) -> None:
    """The file as a whole, or as it was; none for no letters."""
    if letters:
        with replaced_file(path) as file:
            file.write("".join(json.dumps(_row(letter)) + "\n" for letter in letters).encode())


def _row(letter: DeadLetter) -> dict[str, Any]:
    row = asdict(letter)
    payload: bytes = row.pop("payload")
    kind, name = (Prompt, "prompt") if letter.stream == "prompts" else (Rollout, "rollout")
    try:
        message = kind.FromString(payload)
    except DecodeError:
        return row | {"payload": payload.hex()}
    return row | {name: MessageToDict(message, preserving_proto_field_name=True)}
