"""answers.jsonl: what a person reads after an evaluation."""

import json
from pathlib import Path

from datasets import load_dataset

from orchestrator.jobs.evaluation_answers import write_answers
from pairloop.data.v1.rollout_pb2 import (
    FINISH_REASON_LENGTH,
    FINISH_REASON_STOP,
    ChatMessage,
    Prompt,
    Rollout,
    Sample,
)


def rollout(index: int, *answers: str) -> Rollout:
    known = {"answer": str(index)} | ({"skill": "say"} if index == 2 else {})
    prompt = Prompt(
        id=f"p{index}",
        messages=[ChatMessage(role="user", content=f"say {index}")],
        metadata=known,
    )
    reasons = {True: FINISH_REASON_STOP, False: FINISH_REASON_LENGTH}
    samples = [
        Sample(text=text, token_ids=range(len(text)), finish_reason=reasons[len(text) < 3])
        for text in answers
    ]
    return Rollout(prompt=prompt, samples=samples)


def test_every_answer_is_there_and_told_right_from_wrong(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    write_answers(
        path, [rollout(1, " 1", "two"), rollout(2, "1", "2")], [rollout(1, "x"), rollout(2, "2")]
    )
    first, second = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    assert first == {
        "prompt": [{"role": "user", "content": "say 1"}],
        "metadata": {"answer": "1", "skill": None},
        "greedy": {"text": "x", "right": False, "tokens": 1, "cut": False},
        "sampled": [
            {"text": " 1", "right": True, "tokens": 2, "cut": False},
            {"text": "two", "right": False, "tokens": 3, "cut": True},
        ],
    }
    assert [answer["right"] for answer in second["sampled"]] == [False, True]
    loaded = load_dataset(
        "json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert loaded[1]["greedy"]["right"] is True
