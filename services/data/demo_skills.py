"""Small instruction skills whose answers can be checked: the demo's tasks.

Words and numbers are short, so that a model of a million parameters can learn them in minutes.
"""

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

# Words that Python's library uses often: a small tokenizer trained on it has them whole.
# fmt: off
WORDS = [
    "back", "base", "block", "call", "case", "class", "code", "command", "data",
    "default", "end", "error", "file", "format", "frame", "handle", "header", "input",
    "instance", "key", "lib", "line", "link", "list", "log", "loop", "message", "mode",
    "module", "name", "object", "output", "path", "read", "result", "source", "string",
    "test", "text", "time", "type", "value",
]
# fmt: on

_LEAST_WORDS = 2
_MOST_WORDS = 4
_NUMBERS = 20


@dataclass(frozen=True)
class Task:
    """One prompt and its right answer."""

    skill: str
    prompt: str
    parts: tuple[str, ...]
    """The right answer in pieces: words, or one number."""
    separator: str = " "
    pattern: str = ""
    """Regular expression for the whole answer, where more than one spelling is right."""

    @property
    def answer(self) -> str:
        """The right answer as a demonstration writes it."""
        return self.separator.join(self.parts)

    @property
    def metadata(self) -> dict[str, str]:
        """What the checker reads: `pattern` or `answer`; and `skill` for tables."""
        right = {"pattern": self.pattern} if self.pattern else {"answer": self.answer}
        return {"skill": self.skill, **right}


def _words(rng: random.Random) -> list[str]:
    return rng.sample(WORDS, rng.randint(_LEAST_WORDS, _MOST_WORDS))


def _copy(rng: random.Random) -> Task:
    words = _words(rng)
    return Task("copy", f"Copy: {' '.join(words)}", tuple(words))


def _reverse(rng: random.Random) -> Task:
    words = _words(rng)
    return Task("reverse", f"Reverse: {' '.join(words)}", tuple(reversed(words)))


def _sort(rng: random.Random) -> Task:
    words = _words(rng)
    return Task("sort", f"Sort: {' '.join(words)}", tuple(sorted(words)))


def _count(rng: random.Random) -> Task:
    words = _words(rng)
    return Task("count", f"Count: {' '.join(words)}", (str(len(words)),))


def _last(rng: random.Random) -> Task:
    words = _words(rng)
    return Task("last", f"Last: {' '.join(words)}", (words[-1],))


def _unique(rng: random.Random) -> Task:
    words = _words(rng)
    repeated = list(words)
    repeated.insert(rng.randint(1, len(words)), rng.choice(words))
    # First occurrences in order: an insertion before the original moves the word forward.
    return Task("unique", f"Unique: {' '.join(repeated)}", tuple(dict.fromkeys(repeated)))


def _add(rng: random.Random) -> Task:
    first, second = rng.randrange(_NUMBERS), rng.randrange(_NUMBERS)
    return Task("add", f"Add: {first} {second}", (str(first + second),))


def _commas(rng: random.Random) -> Task:
    words = _words(rng)
    pattern = r",\s*".join(re.escape(word) for word in words)
    return Task("commas", f"Commas: {' '.join(words)}", tuple(words), ", ", pattern)


SKILLS: dict[str, Callable[[random.Random], Task]] = {
    "copy": _copy,
    "reverse": _reverse,
    "sort": _sort,
    "count": _count,
    "last": _last,
    "unique": _unique,
    "add": _add,
    "commas": _commas,
}

LEFT_OUT = ("last", "commas")
"""Skills without preferences: what happens to their accuracy is the alignment tax."""


def draw_tasks(
    rng: random.Random, skills: list[str], count: int, taken: set[str], *, distinct: bool
) -> list[Task]:
    """`count` tasks, skills in turn; no prompt in `taken`.

    With `distinct` every prompt is new, and is added to `taken`. A skill that has run out of
    prompts gives its turn to the next. Raises ValueError when all have.
    """
    tasks: list[Task] = []
    open_skills = list(skills)
    while len(tasks) < count:
        if not open_skills:
            raise ValueError(f"only {len(tasks)} distinct prompts in {', '.join(skills)}")
        skill = open_skills[len(tasks) % len(open_skills)]
        task = next((t for t in _tries(rng, skill) if t.prompt not in taken), None)
        if task is None:
            open_skills.remove(skill)
            continue
        if distinct:
            taken.add(task.prompt)
        tasks.append(task)
    return tasks


def _tries(rng: random.Random, skill: str, most: int = 200) -> Iterator[Task]:
    return (SKILLS[skill](rng) for _ in range(most))
