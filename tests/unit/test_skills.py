import json
import random
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from services.data.demo_data import make_demo_data
from services.data.demo_mistakes import spoil
from services.data.demo_skills import LEFT_OUT, SKILLS, WORDS, Task, draw_tasks
from services.data.rows import check_rows, read_conversations, read_prompts
from services.data.settings import DataSource

SIZES = {"corpus_megabytes": 0.05, "demonstrations": 400, "corrupted": 0.4}


def _settings(prompts: int = 200, heldout: int = 80) -> SimpleNamespace:
    return SimpleNamespace(**SIZES, prompts=prompts, heldout_prompts=heldout)


def _expected(skill: str, arguments: list[str]) -> str:
    """Right answers by other means than the skills use."""
    return {
        "copy": lambda: " ".join(arguments),
        "reverse": lambda: " ".join(arguments[::-1]),
        "sort": lambda: " ".join(sorted(arguments)),
        "count": lambda: str(len(arguments)),
        "last": lambda: arguments[-1],
        "unique": lambda: " ".join(
            word for at, word in enumerate(arguments) if word not in arguments[:at]
        ),
        "add": lambda: str(sum(map(int, arguments))) if arguments[0].isdigit() else "",
        "commas": lambda: ", ".join(arguments),
    }[skill]()


@pytest.mark.parametrize("skill", sorted(SKILLS))
def test_answers_are_right(skill: str) -> None:
    rng = random.Random(1)
    for _ in range(50):
        task = SKILLS[skill](rng)
        assert task.skill == skill
        assert task.answer == _expected(skill, task.prompt.split(": ")[1].split())
        assert task.metadata["skill"] == skill


def test_words_and_left_out_skills() -> None:
    assert len(set(WORDS)) == len(WORDS) == 42
    assert set(LEFT_OUT) < set(SKILLS)


def test_commas_accept_spacing_but_no_other_words() -> None:
    task = SKILLS["commas"](random.Random(3))
    pattern = task.metadata["pattern"]
    assert "answer" not in task.metadata
    assert re.fullmatch(pattern, task.answer)
    assert re.fullmatch(pattern, task.answer.replace(", ", ","))
    assert not re.fullmatch(pattern, task.answer.replace(",", ""))


@pytest.mark.parametrize("skill", sorted(SKILLS))
def test_mistakes_are_never_right_and_of_several_kinds(skill: str) -> None:
    rng = random.Random(2)
    kinds = set()
    for _ in range(200):
        task = SKILLS[skill](rng)
        answer, kind = spoil(rng, task)
        kinds.add(kind)
        assert answer != task.answer
        assert answer == " ".join(answer.split())
        assert not (task.pattern and re.fullmatch(task.pattern, answer))
    assert len(kinds) >= 2


def test_draw_takes_skills_in_turn_and_runs_out_clearly() -> None:
    taken: set[str] = set()
    tasks = draw_tasks(random.Random(0), ["copy", "add"], 10, taken, distinct=True)
    assert [task.skill for task in tasks] == ["copy", "add"] * 5
    assert taken == {task.prompt for task in tasks}
    with pytest.raises(ValueError, match="distinct prompts in add"):
        draw_tasks(random.Random(0), ["add"], 401, set(), distinct=True)


def test_same_seed_same_tasks() -> None:
    def draw(seed: int) -> list[Task]:
        return draw_tasks(random.Random(seed), list(SKILLS), 50, set(), distinct=True)

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_demo_files(tmp_path: Path) -> None:
    counts = make_demo_data(tmp_path, _settings(), seed=0)
    kinds = {
        "texts.jsonl": "texts",
        "texts_heldout.jsonl": "texts",
        "demonstrations.jsonl": "conversations",
        "preference_prompts.jsonl": "prompts",
        "prompts.jsonl": "prompts",
        "heldout_prompts.jsonl": "prompts",
    }
    assert set(counts) == set(kinds) == {file.name for file in tmp_path.iterdir()}
    for name, kind in kinds.items():
        assert check_rows(DataSource(path=str(tmp_path / name)), kind) == counts[name]  # type: ignore[arg-type]
    assert counts["demonstrations.jsonl"] == 400
    assert counts["prompts.jsonl"] == counts["preference_prompts.jsonl"] == 100
    assert counts["heldout_prompts.jsonl"] == 80


def test_prompts_are_disjoint_and_skills_left_out(tmp_path: Path) -> None:
    make_demo_data(tmp_path, _settings(), seed=0)

    def prompts(name: str) -> list[str]:
        rows = read_prompts(DataSource(path=str(tmp_path / name)))
        skills = {row.metadata["skill"] for row in rows}
        everything = name in ("heldout_prompts.jsonl", "demonstrations.jsonl")
        assert skills == (set(SKILLS) if everything else set(SKILLS) - set(LEFT_OUT))
        return [row.messages[0]["content"] for row in rows]

    heldout, online = prompts("heldout_prompts.jsonl"), prompts("prompts.jsonl")
    offline, learned = prompts("preference_prompts.jsonl"), prompts("demonstrations.jsonl")
    distinct = heldout + online + offline
    assert len(set(distinct)) == len(distinct)
    assert not set(heldout) & set(learned)


def test_share_of_mistakes(tmp_path: Path) -> None:
    make_demo_data(tmp_path, _settings(), seed=0)
    rows = read_conversations(DataSource(path=str(tmp_path / "demonstrations.jsonl")))
    wrong = [row for row in rows if row.metadata["mistake"]]
    assert 0.3 < len(wrong) / len(rows) < 0.5
    for row in rows:
        if "answer" in row.metadata:
            right = row.messages[-1]["content"] == row.metadata["answer"]
            assert right == (not row.metadata["mistake"])


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        make_demo_data(tmp_path / name, _settings(), seed=seed)
    read = [(tmp_path / name / "demonstrations.jsonl").read_bytes() for name in "abc"]
    assert read[0] == read[1] != read[2]


def test_rows_are_plain_json(tmp_path: Path) -> None:
    make_demo_data(tmp_path, _settings(), seed=0)
    row = json.loads((tmp_path / "prompts.jsonl").read_text().splitlines()[0])
    assert set(row) == {"messages", "metadata"}
