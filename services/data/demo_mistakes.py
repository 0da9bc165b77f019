"""Mistakes in demonstrations, as people make them: the modes preferences later choose between."""

import random

from services.data.demo_skills import WORDS, Task

FILLERS = ("well", "so", "ok")


def spoil(rng: random.Random, task: Task) -> tuple[str, str]:
    """A wrong answer to `task` and the name of its mistake; never the right answer."""
    mistakes = [_filler, _number] if task.parts[0].isdigit() else [_filler, _drop, _add, _swap]
    if len(task.parts) == 1 and not task.parts[0].isdigit():
        mistakes = [_filler, _add]
    mistake = rng.choice(mistakes)
    parts = mistake(rng, list(task.parts))
    return task.separator.join(parts), mistake.__name__.lstrip("_")


def _filler(rng: random.Random, parts: list[str]) -> list[str]:
    return [rng.choice(FILLERS), *parts]


def _drop(rng: random.Random, parts: list[str]) -> list[str]:
    del parts[rng.randrange(len(parts))]
    return parts


def _add(rng: random.Random, parts: list[str]) -> list[str]:
    parts.insert(rng.randint(0, len(parts)), rng.choice(WORDS))
    return parts


def _swap(rng: random.Random, parts: list[str]) -> list[str]:
    # The words of an answer are distinct, so a swap always changes it.
    at = rng.randrange(len(parts) - 1)
    parts[at], parts[at + 1] = parts[at + 1], parts[at]
    return parts


def _number(rng: random.Random, parts: list[str]) -> list[str]:
    return [str(int(parts[0]) + rng.choice((1, 2, 10)))]
