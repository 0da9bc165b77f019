"""Prompts that kept failing, written where a person finds them, and tried again.

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

from orchestrator.episodes import EpisodeStore
from pairloop.admin.v1.admin_pb2 import Change
from pairloop.data.v1.rollout_pb2 import Prompt, Rollout
from services.learner.train.durable import replaced_file
from services.queues.items import DeadLetter
from services.states import State, state_of

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
    if not lines:
        path.unlink(missing_ok=True)  # what had failed was tried again since
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


async def try_failed_again(store: EpisodeStore) -> str:
    """The command of a run that FAILED is given again: what the episode lost is tried once more.

    It is SAMPLING then. Returns a line on it; "" where no episode failed, or has nothing to try
    again. Cut off in between, it fails once more, and the next time this does the same.
    """
    for episode in await store.list():
        if state_of(episode) != State.FAILED or not await store.dead_letters(episode.number):
            continue
        change = Change(actor="the command", reason="given again")
        await store.move(episode.number, State.SAMPLING, change)
        count = await store.replay(episode.number)
        return f"episode {episode.number} had failed: {count} prompts that it lost are tried again"
    return ""


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
