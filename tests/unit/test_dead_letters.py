"""What kept failing, as a person finds it."""

import json
from pathlib import Path

from orchestrator.online.dead_letters import join_dead_letters, keep_dead_letters
from pairloop.data.v1.rollout_pb2 import Prompt, Rollout
from services.queues.items import DeadLetter


def letter(stream: str, payload: bytes, episode: int = 1) -> DeadLetter:
    error = "ValueError: no such answer"
    return DeadLetter("1-0", stream, f"run/e{episode}/p0", episode, 3, 0, error, payload)


def test_a_dead_letter_shows_the_item_with_its_cause(tmp_path: Path) -> None:
    path = tmp_path / "dead_letters.jsonl"
    prompt = Prompt(id="run/e1/p0", token_ids=[1, 2])
    letters = [
        letter("prompts", prompt.SerializeToString()),
        letter("rollouts", Rollout(prompt=prompt, worker_id="rollout-0").SerializeToString()),
        letter("rollouts", b"\xff"),
        letter("rollouts", b""),
    ]
    assert join_dead_letters(tmp_path, letters, path) == 4
    first, second, third, gone = map(json.loads, path.read_text().splitlines())
    assert (first["error"], first["failures"]) == ("ValueError: no such answer", 3)
    assert first["prompt"] == {"id": "run/e1/p0", "token_ids": [1, 2]}
    assert second["rollout"]["worker_id"] == "rollout-0"
    assert third["payload"] == "ff"
    assert "payload" not in first | second
    assert not {"payload", "rollout"} & gone.keys()  # its file was missing, as the error says


def test_no_letter_makes_no_file(tmp_path: Path) -> None:
    keep_dead_letters(tmp_path, 1, [letter("prompts", b"", episode=2)])
    path = tmp_path / "dead_letters.jsonl"
    assert join_dead_letters(tmp_path, [], path) == 0
    assert join_dead_letters(tmp_path, [letter("prompts", b"")], path) == 1
    assert join_dead_letters(tmp_path, [], path) == 0  # it was tried again since
    assert not list(tmp_path.iterdir())


def test_letters_of_episodes_that_are_over_are_kept_once(tmp_path: Path) -> None:
    path = tmp_path / "dead_letters.jsonl"
    first, second, third = (letter("prompts", b"", episode) for episode in (1, 2, 3))
    keep_dead_letters(tmp_path, 1, [first, second])
    keep_dead_letters(tmp_path, 2, [second])

    def episodes() -> list[int]:
        return [json.loads(line)["episode"] for line in path.read_text().splitlines()]

    assert join_dead_letters(tmp_path, [third], path) == 3
    assert episodes() == [1, 2, 3]
    # Redis fell back behind the end of the second.
    assert join_dead_letters(tmp_path, [second, third], path) == 3
    assert episodes() == [1, 2, 3]
