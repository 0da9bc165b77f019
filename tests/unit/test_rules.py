"""Rewards without a model, and how parts become one score."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pairloop.data.v1.rollout_pb2 import (
    FINISH_REASON_LENGTH,
    FINISH_REASON_STOP,
    Prompt,
    Sample,
)
from services.errors import ArtifactError, ConfigError, DataError, LineageError, WorkerError
from services.hub import find_model
from services.reward import rules
from services.reward.composite import Composite, Part, build, describe, part_names
from services.reward.function import RewardFunction, load_function
from services.reward.settings import RewardSettings

FUNCTIONS = """
def vowels(prompt, answer, metadata):
    return sum(letter in "aeiou" for letter in answer) + len(metadata) + 10 * len(prompt)

def broken(prompt, answer, metadata):
    raise KeyError("no such key")

def text(prompt, answer, metadata):
    return "much"

def infinite(prompt, answer, metadata):
    return float("inf")

async def slow(prompt, answer, metadata):
    return 1.0

def two(prompt, answer):
    return 1.0

def four(p, a, m, more):
    return 1.0

def turns(prompt, answer, metadata, messages):
    assert messages[-1] == {"role": "user", "content": "Name a colour."}
    return float(len(messages))

def score(prompt, answer, metadata):
    return 1.0

number = 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "reward_of_a_test.py").write_text(FUNCTIONS)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return str(tmp_path)


def settings(*parts: dict[str, object]) -> RewardSettings:
    return RewardSettings.model_validate({"parts": list(parts)})


def function(name: str) -> dict[str, object]:
    return {"kind": "function", "path": f"reward_of_a_test:{name}"}


@pytest.mark.parametrize(
    ("metadata", "answer", "expected"),
    [
        ({"answer": "a b"}, "  a \n b ", 1.0),
        ({"answer": "a b"}, "ab", 0.0),
        ({"answer": "a b"}, "A b", 0.0),
        ({"pattern": r"\d+"}, " 12\n", 1.0),
        ({"pattern": r"\d+"}, "12 a", 0.0),
        ({"answer": "12", "pattern": r"\d+"}, "12", 1.0),
        ({"answer": "12", "pattern": r"\d"}, "12", 0.0),
        ({"answer": ""}, " ", 1.0),
        ({"answers": '["four", "4"]'}, " 4\n", 1.0),
        ({"answers": '["four", "4"]'}, "5", 0.0),
    ],
)
def test_checker(metadata: dict[str, str], answer: str, expected: float) -> None:
    assert rules.checker("r/e1/p0", metadata, answer) == expected


@pytest.mark.parametrize(
    ("metadata", "problem"),
    [
        ({"skill": "sort"}, 'needs metadata "answer" or "pattern" and the prompt has skill'),
        ({"pattern": "("}, "is broken"),
        ({"pattern": "a" * 1001}, "1001 characters"),
        ({"pattern": r"(a|aa)+$"}, "nested repetitions"),
    ],
)
def test_checker_refuses_naming_the_prompt(metadata: dict[str, str], problem: str) -> None:
    with pytest.raises(DataError, match=r"r/e1/p7: .*") as caught:
        rules.checker("r/e1/p7", metadata, "a" * 60 + "!")
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_length_and_missing_eos() -> None:
    assert [rules.length(n, target=10, scale=4.0) for n in (0, 10, 12, 14, 18)] == [
        0.0, 0.0, -0.5, -1.0, -2.0,
    ]  # fmt: skip
    assert (rules.missing_eos(True), rules.missing_eos(False)) == (-1.0, 0.0)


def test_parts_are_weighted_summed_and_reported(folder: str) -> None:
    reward = build(
        settings(
            {"kind": "checker", "weight": 2.0},
            {"kind": "length", "target": 2, "scale": 1.0, "weight": 0.5},
            {"kind": "missing_eos"},
            {**function("vowels"), "weight": 0.25},
        ),
        folder,
    )
    prompt = Prompt(id="r/e1/p0", text="?", metadata={"answer": "ae"})
    samples = [
        Sample(index=0, text="ae", token_ids=[1, 2], finish_reason=FINISH_REASON_STOP),
        Sample(index=1, text="xyz", token_ids=[1, 2, 3, 4], finish_reason=FINISH_REASON_LENGTH),
    ]
    first, second = reward.score(prompt, samples)
    assert dict(first.parts) == {"checker": 1, "length": 0, "missing_eos": 0, "vowels": 13}
    assert dict(second.parts) == {"checker": 0, "length": -2, "missing_eos": -1, "vowels": 11}
    assert (first.total, second.total) == (2.0 + 3.25, -1.0 - 1.0 + 2.75)


def test_names_and_description() -> None:
    reward = settings(
        {"kind": "checker"},
        {"kind": "length", "weight": 0.5},
        {"kind": "checker", "weight": 2.0},
        {"kind": "model", "path": "runs/demo/reward_model"},
        {"kind": "checker"},
    )
    assert part_names(reward) == ["checker", "length", "checker_2", "model", "checker_3"]
    assert describe(reward) == (
        "1.0*checker + 0.5*length + 2.0*checker + 1.0*model(runs/demo/reward_model) + 1.0*checker"
    )


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("broken", "failed on r/e1/p0: KeyError: 'no such key'"),
        ("text", "gave str for r/e1/p0, not a number"),
        ("infinite", "gave inf for r/e1/p0"),
    ],
)
def test_a_failing_function_names_itself_and_the_prompt(
    folder: str, name: str, problem: str
) -> None:
    reward = build(settings(function(name)), folder)
    with pytest.raises(WorkerError) as caught:
        reward.score(Prompt(id="r/e1/p0"), [Sample(index=4, text="x")])
    assert problem in str(caught.value)


def test_scalars_of_numpy_and_torch_are_numbers() -> None:
    for value in (np.float32(0.5), np.int64(2), torch.tensor(0.25), True):
        assert _giving(value)("id", "", "", {}, []) == float(value)
    for value in (torch.ones(2), None, "1.0"):
        with pytest.raises(WorkerError, match="not a number"):
            _giving(value)("id", "", "", {}, [])


def _giving(value: object) -> RewardFunction:
    return RewardFunction("f", lambda prompt, answer, metadata: value, takes_messages=False)


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("no_such_module_here:f", "importing no_such_module_here failed"),
        ("reward_of_a_test:missing", "missing is not there"),
        ("reward_of_a_test:number", "number is not callable"),
        ("reward_of_a_test:slow", "slow is async; write it with def"),
        ("reward_of_a_test:two", r"two\(prompt, answer\) cannot be called: too many positional"),
        ("reward_of_a_test:four", r"four\(p, a, m, more\) cannot be called: missing a required"),
    ],
)
def test_a_function_that_cannot_be_found(folder: str, path: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        load_function(path, folder)
    assert "\n" not in str(caught.value)


def test_a_function_that_asks_for_the_messages_gets_them(folder: str) -> None:
    reward = build(settings(function("turns"), function("vowels")), folder)
    prompt = Prompt(id="p", text="<rendered>")
    prompt.messages.add(role="system", content="Be brief.")
    prompt.messages.add(role="user", content="Name a colour.")
    (score,) = reward.score(prompt, [Sample(text="red")])
    assert dict(score.parts) == {"turns": 2.0, "vowels": 101.0}


def test_parts_are_told_apart_by_name() -> None:
    one, two = function("score"), {"kind": "function", "path": "other.rules:score"}
    assert part_names(settings(one, two)) == ["reward_of_a_test.score", "other.rules.score"]
    assert part_names(settings(one, {"kind": "checker", "name": "exact"})) == ["score", "exact"]
    assert part_names(settings(function("mean"))) == ["reward_of_a_test.mean"]
    assert part_names(settings(one, one)) == ["reward_of_a_test.score", "reward_of_a_test.score_2"]
    checkers = [{"kind": "checker"}, {"kind": "checker", "name": "checker_2"}, {"kind": "checker"}]
    assert part_names(settings(*checkers)) == ["checker", "checker_2", "checker_3"]
    with pytest.raises(ValueError, match="'a b' is no name of a metric"):
        settings({"kind": "checker", "name": "a b"})
    with pytest.raises(ValueError, match="two parts are named 'exact'"):
        settings({"kind": "checker", "name": "exact"}, {"kind": "length", "name": "exact"})
    with pytest.raises(ValueError, match="a part named 'max': reward_max is of the whole sum"):
        settings({"kind": "checker", "name": "max"})


def test_a_value_that_is_not_finite_is_an_error() -> None:
    reward = Composite([Part("odd", 1.0, lambda prompt, samples: [0.0, math.nan])])
    with pytest.raises(WorkerError, match="odd gave nan for p, sample 1"):
        reward.score(Prompt(id="p"), [Sample(index=0), Sample(index=1)])


def test_two_models_must_read_one_tokenizer() -> None:
    class Model:
        def __init__(self, fingerprint: str) -> None:
            self.fingerprint = fingerprint

    assert Composite([], [Model("a"), Model("a")]).fingerprint == "a"  # type: ignore[list-item]
    assert Composite([]).fingerprint == ""
    with pytest.raises(LineageError, match="a, b"):
        Composite([], [Model("a"), Model("b")])  # type: ignore[list-item]


def test_where_a_model_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "config.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    assert find_model("good", str(tmp_path)) == str(tmp_path / "good")
    assert find_model("Qwen/Some-RM-1.5", str(tmp_path)) == "Qwen/Some-RM-1.5"
    with pytest.raises(ArtifactError, match="no such model folder"):
        find_model("runs/demo/reward_model", str(tmp_path))
    with pytest.raises(ArtifactError, match=r"no config\.json"):
        find_model("empty", str(tmp_path))


def test_rules_need_no_torch() -> None:
    code = (
        "import sys, services.reward.composite; print('torch' in sys.modules, 'ray' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False", "False"]
