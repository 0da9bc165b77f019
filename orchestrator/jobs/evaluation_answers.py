"""answers.jsonl of an evaluation: every prompt with its answers, and which of them are right."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pairloop.data.v1.rollout_pb2 import FINISH_REASON_LENGTH, Rollout
from services.data.messages import plain_messages
from services.reward.rules import checker

ANSWERS = "answers.jsonl"


def write_answers(path: Path, sampled: Sequence[Rollout], greedy: Sequence[Rollout]) -> None:
    """One line a prompt, in the order of the prompts; both hold the same prompts."""
    with path.open("w", encoding="utf-8") as file:
        for row in answer_rows(sampled, greedy):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def answer_rows(sampled: Sequence[Rollout], greedy: Sequence[Rollout]) -> Iterator[dict[str, Any]]:
    """prompt (messages), metadata, greedy (one answer) and sampled (a list of them).

    Every row's metadata has the same names, else `datasets` does not read them as one table.
    """
    names = sorted({name for rollout in sampled for name in rollout.prompt.metadata})
    for several, one in zip(sampled, greedy, strict=True):
        prompt = several.prompt
        yield {
            "prompt": plain_messages(prompt),
            "metadata": {name: prompt.metadata.get(name) for name in names},
            "greedy": _answers(one)[0],
            "sampled": _answers(several),
        }


def right(rollout: Rollout) -> list[float]:
    """1 or 0 an answer, by the checker."""
    prompt = rollout.prompt
    return [checker(prompt.id, prompt.metadata, sample.text) for sample in rollout.samples]


def _answers(rollout: Rollout) -> list[dict[str, Any]]:
    return [
        {
            "text": sample.text,
            "right": value == 1.0,
            "tokens": len(sample.token_ids),
            "cut": sample.finish_reason == FINISH_REASON_LENGTH,
        }
        for sample, value in zip(rollout.samples, right(rollout), strict=True)
    ]
