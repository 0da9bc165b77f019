"""The demo's data files: pre-training texts, demonstrations and prompts with checkable answers."""

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from services.data.demo_corpus import library_corpus
from services.data.demo_mistakes import spoil
from services.data.demo_skills import LEFT_OUT, SKILLS, Task, draw_tasks
from services.errors import DataError

Row = dict[str, object]


class DemoDataSettings(Protocol):
    """What `make_demo_data` is told; the demo_data job's settings are such."""

    @property
    def corpus_megabytes(self) -> float:
        """Characters of pre-training text, in millions."""

    @property
    def demonstrations(self) -> int:
        """Dialogues for SFT."""

    @property
    def corrupted(self) -> float:
        """Share of them with a mistake, 0 to 1."""

    @property
    def prompts(self) -> int:
        """Prompts of preference_prompts.jsonl and prompts.jsonl together."""

    @property
    def heldout_prompts(self) -> int:
        """Prompts for evaluation."""


def make_demo_data(folder: Path, settings: DemoDataSettings, seed: int) -> dict[str, int]:
    """Write the demo's files to `folder`; returns the number of rows of each.

    texts.jsonl and texts_heldout.jsonl (pre-training), demonstrations.jsonl (SFT, a share of
    them with a mistake), preference_prompts.jsonl and prompts.jsonl (disjoint halves, without
    the skills in LEFT_OUT), heldout_prompts.jsonl (all skills, in none of the others). The same
    seed and the same Python give the same bytes. Raises DataError when so many distinct prompts
    do not exist.
    """
    folder.mkdir(parents=True, exist_ok=True)
    corpus = library_corpus(settings.corpus_megabytes)
    heldout, prompts, demonstrations = _tasks(settings, random.Random(f"tasks-{seed}"))
    mistakes = random.Random(f"mistakes-{seed}")
    half = len(prompts) // 2
    files: dict[str, list[Row]] = {
        "texts.jsonl": [{"text": text} for text in corpus.texts],
        "texts_heldout.jsonl": [{"text": text} for text in corpus.heldout],
        "demonstrations.jsonl": [
            _demonstration(task, mistakes, settings.corrupted) for task in demonstrations
        ],
        "preference_prompts.jsonl": [_prompt(task) for task in prompts[:half]],
        "prompts.jsonl": [_prompt(task) for task in prompts[half:]],
        "heldout_prompts.jsonl": [_prompt(task) for task in heldout],
    }
    return {name: _write(folder / name, rows) for name, rows in files.items()}


def _tasks(
    settings: DemoDataSettings, rng: random.Random
) -> tuple[list[Task], list[Task], list[Task]]:
    skills = list(SKILLS)
    preferred = [skill for skill in skills if skill not in LEFT_OUT]
    taken: set[str] = set()
    try:
        heldout = draw_tasks(rng, skills, settings.heldout_prompts, taken, distinct=True)
        held = set(taken)
        prompts = draw_tasks(rng, preferred, settings.prompts, taken, distinct=True)
        demonstrations = draw_tasks(rng, skills, settings.demonstrations, held, distinct=False)
    except ValueError as error:
        raise DataError(f"demo data: {error}; ask for fewer prompts") from error
    rng.shuffle(prompts)
    rng.shuffle(demonstrations)
    return heldout, prompts, demonstrations


def _prompt(task: Task) -> Row:
    return {"messages": [{"role": "user", "content": task.prompt}], "metadata": task.metadata}


def _demonstration(task: Task, rng: random.Random, corrupted: float) -> Row:
    answer, mistake = spoil(rng, task) if rng.random() < corrupted else (task.answer, "")
    return {
        "messages": [
            {"role": "user", "content": task.prompt},
            {"role": "assistant", "content": answer},
        ],
        "metadata": {**task.metadata, "mistake": mistake},
    }


def _write(file: Path, rows: Iterable[Row]) -> int:
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(lines)
