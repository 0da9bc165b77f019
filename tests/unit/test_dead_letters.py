"""What kept failing, as a person finds it."""

import json
from pathlib import Path

from orchestrator.online.dead_letters import write_dead_letters
from pairloop.data.v1.rollout_pb2 import Prompt, Rollout
from services.queues.items import DeadLetter


def letter(stream: str, payload: bytes) -> DeadLetter:
    return DeadLetter("1-0", stream, "run/e1/p0", 1, 3, 0, "ValueError: no such answer", payload)


def test_a_dead_letter_shows_the_item_with_its_cause(tmp_path: Path) -> None:
    path = tmp_path / "dead_letters.jsonl"
    prompt = Prompt(id="run/e1/p0", token_ids=[1, 2])
    letters = [
        letter("prompts", prompt.SerializeToString()),
        letter("rollouts", Rollout(prompt=prompt, worker_id="rollout-0").SerializeToString()),
        letter("rollouts", b"\xff"),
    ]
    write_dead_letters(letters, path)
    first, second, third = map(json.loads, path.read_text().splitlines())
    assert (first["error"], first["failures"]) == ("ValueError: no such answer", 3)
    assert first["prompt"] == {"id": "run/e1/p0", "token_ids": [1, 2]}
    assert second["rollout"]["worker_id"] == "rollout-0"
    assert third["payload"] == "ff"
    assert "payload" not in first | second


def test_no_letter_makes_no_file(tmp_path: Path) -> None:
    write_dead_letters([], tmp_path / "dead_letters.jsonl")
    assert not list(tmp_path.iterdir())
