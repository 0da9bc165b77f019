"""What README, the tutorial and the shipped configs say, done: their commands, on tiny models.

All of it in one folder that looks like a clone of this repository, with the data files that the
configs name, and in one local Ray that stays from run to run.
"""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml

from services.states import State
from tests.documented import (
    DRY_RUN,
    FIRST,
    LOOKS,
    MISTAKE,
    ONE_PAGE,
    ONE_PAGE_REPLAY,
    ONLINE,
    REPLAY,
    STOP_RAY,
    VERIFY,
    WATCH,
    WORKERS,
    block,
    commands,
    text_of,
)

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted(path.stem for path in (ROOT / "configs").glob("*.yaml"))
TUTORIAL = "docs/tutorial.md"

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

ENGINE = "engine={max_model_len: 256, max_num_seqs: 32, kv_cache_gib: 0.1}"
ANSWERS = ("sampling.n=4", "sampling.max_tokens=16")
TRAIN = {
    "batch_size": 8,
    "micro_batch_tokens": 256,
    "max_length": 128,
    "dtype": "float32",
    "threads": 1,
    "workers": 1,
    "num_gpus": 0,
    "num_cpus": 1,
}
SMALL_TRAIN = tuple(f"train.{key}={value}" for key, value in TRAIN.items())
# The tiny model is right nowhere: answers of different lengths are what it can be told apart by.
BY_LENGTH = "{parts: [{kind: checker}, {kind: length, target: 4, scale: 16}]}"
EPISODES = ("episodes={count: 1, prompts: 6}", "pairs.min_margin=0")


# The same in both recipes, so that the second one reuses what the first has trained.
SCHEDULE = ("train.optimizer.lr=1.0e-5", "train.schedule={kind: cosine, warmup_steps: 0}")


def recipe_of(beta: float) -> tuple[str, ...]:
    """The whole recipes for GPU clusters, on a CPU and local files; each with its online stage."""
    stages = {
        "reward_model": (
            "policy=policy",
            "pairs={path: data/pairs.jsonl, limit: 16}",
            "heldout={path: data/pairs.jsonl, limit: 8}",
            *SMALL_TRAIN,
            *SCHEDULE,
        ),
        "offline_dpo": (
            "policy=policy",
            "pairs={path: data/pairs.jsonl, limit: 16}",
            *SMALL_TRAIN,
            *SCHEDULE,
        ),
        "online_dpo": (
            "prompts={path: data/prompts.jsonl, limit: 12}",
            "reward.num_gpus=0",
            "reward.host=127.0.0.1",
            f"dpo.beta={beta}",
            *EPISODES,
            *ANSWERS,
            *SMALL_TRAIN,
            ENGINE,
        ),
    }
    return tuple(f"stages.{name}.{each}" for name, small in stages.items() for each in small)


SMALL: Mapping[str, tuple[str, ...]] = {
    "evaluate": (
        "evaluation={prompts: {path: data/heldout.jsonl, limit: 12}, samples: 2, max_tokens: 16}",
        ENGINE,
    ),
    "offline_dpo": ("pairs.limit=16", *SMALL_TRAIN),
    "online_dpo": (*EPISODES, *ANSWERS, *SMALL_TRAIN, ENGINE, "admin.port=0"),
    "preferences": (
        "prompts.limit=12",
        f"reward={BY_LENGTH}",
        "pairs.min_margin=0",
        *ANSWERS,
        ENGINE,
    ),
    "pretrain": (
        "texts.limit=40",
        "tokenizer={vocab_size: 300}",
        "model={hidden_size: 32, layers: 1, heads: 2, kv_heads: 1, intermediate_size: 64,"
        " rope_theta: 10000, max_positions: 128}",
        "sequence_length=64",
        *SMALL_TRAIN,
        "train.max_length=64",
        "train.max_steps=2",
    ),
    "qwen2-0.5b": recipe_of(beta=0.1),
    "qwen2-7b": recipe_of(beta=0.2),
    "replay_dpo": (),  # as small as what the tiny recipe recorded
    "reward_model": ("pairs.limit=16", *SMALL_TRAIN),
    "sft": ("demonstrations.limit=16", *SMALL_TRAIN),
}
"""What makes a run of each config small. demo.yaml is `make demo`; tiny.yaml stands for it."""

SAID = {
    "policy=...": "policy=policy",
    "policy=/path/to/sft": "policy=policy",
    "policy=/path/to/base": "policy=base",
    "base=...": "base=base",
    "base=/path/to/base": "base=base",
    "texts.path=...": "texts.path=data/texts.jsonl",
    "evaluation.prompts.path=...": "evaluation.prompts.path=data/heldout.jsonl",
    "rollouts=...": "rollouts=recorded/online_dpo",
    "rollouts=runs/first/online_dpo": "rollouts=recorded/online_dpo",
    "runs/first/online_dpo": "recorded/online_dpo",
    "python": ".venv/bin/python",
}
"""In place of what a page or a config leaves to its reader."""


# `make` in a test that `make` started would tell of the folders it enters.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}


@pytest.fixture(scope="module")
def place(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder like a clone's, with models and data of the tiny recipe."""
    place = tmp_path_factory.mktemp("clone")
    for name in ("Makefile", "configs", "examples", "orchestrator", "protos", "services"):
        (place / name).symlink_to(ROOT / name)
    (place / ".venv").symlink_to(sys.prefix)
    (place / "policy").symlink_to(recipe / "sft")
    (place / "base").symlink_to(recipe / "pretrain")
    (place / "recorded").symlink_to(recipe)
    (place / "data").mkdir()
    made = {
        "texts": "data/texts",
        "demonstrations": "data/demonstrations",
        "prompts": "data/prompts",
        "heldout": "data/heldout_prompts",
        "pairs": "preferences/pairs",
    }
    for name, source in made.items():
        (place / "data" / f"{name}.jsonl").symlink_to(recipe / f"{source}.jsonl")
        (place / f"{name}.jsonl").symlink_to(recipe / f"{source}.jsonl")
    (place / "data.jsonl").symlink_to(recipe / "data" / "demonstrations.jsonl")
    yield place
    run(place, STOP_RAY)


def words(command: str, *more: str) -> list[str]:
    """As a shell would split it, with what is left to the reader filled in."""
    return [SAID.get(word, word) for word in shlex.split(command)] + list(more)


def run(place: Path, command: str, *more: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        words(command, *more),
        cwd=place,
        capture_output=True,
        text=True,
        timeout=300,
        env=ENVIRONMENT,
    )


def documented(config: str) -> str:
    """The command in a config's head, or the plain one."""
    head = (ROOT / "configs" / f"{config}.yaml").read_text().split("\njob:")[0]
    found = re.search(r"^#   (python orchestrator/run\.py configs/.*)$", head, re.MULTILINE)
    return found[1] if found else f"python orchestrator/run.py configs/{config}.yaml"


@pytest.mark.parametrize("config", CONFIGS)
def test_every_config_passes_a_dry_run_as_its_head_says(place: Path, config: str) -> None:
    sampled = ("evaluate", "online_dpo", "preferences")  # where the model must be a larger one
    small = SMALL[config] if config in sampled else ()
    done = run(place, documented(config), "--dry-run", *small)
    assert done.returncode == 0, done.stderr
    resolved = done.stdout
    assert yaml.safe_load(resolved)["job"]
    assert "# What a run does" in resolved
    assert not (place / "runs" / config).exists()


@pytest.mark.parametrize("config", sorted(set(SMALL) - {"online_dpo", "replay_dpo"}))
def test_every_config_runs_small(place: Path, config: str) -> None:
    done = run(place, documented(config), "ray.keep=true", f"name=small-{config}", *SMALL[config])
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    summary = json.loads((place / "runs" / f"small-{config}" / "summary.json").read_text())
    stages = summary["stages"]
    assert len(stages) == (3 if config.startswith("qwen2") else 1)
    assert all(stage["finished"] for stage in stages.values())


def test_every_config_but_the_demo_is_run(place: Path) -> None:
    assert {*SMALL, "demo"} == set(CONFIGS)
    demo, tiny = (
        yaml.safe_load((ROOT / name).read_text())["stages"]
        for name in ("configs/demo.yaml", "tests/e2e/tiny.yaml")
    )
    assert [(key, stage["job"]) for key, stage in demo.items()] == [
        (key, stage["job"]) for key, stage in tiny.items()
    ]


def test_a_mistake_is_named_with_its_line_as_the_tutorial_shows(place: Path) -> None:
    first = (place / "prompts.jsonl").read_text().splitlines()[0]
    (place / "wrong.jsonl").write_text(first + '\n{"prompt": 3}\n')
    done = run(place, MISTAKE.replace("=prompts.jsonl", "=wrong.jsonl"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("pairloop: wrong.jsonl, line 2: ")


def test_a_replay_reaches_the_weights_of_the_distributed_run(place: Path) -> None:
    """The job byte for byte; the page up to rounding; and with another beta neither."""
    weights = "model.safetensors"
    recorded = (place / "recorded" / "online_dpo" / weights).read_bytes()
    made = place / "runs" / "same" / "replay_dpo" / weights
    same = [word for word in words(REPLAY) if not word.startswith("dpo.beta")]
    done = run(place, shlex.join(same), "name=same", "ray.keep=true")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert made.read_bytes() == recorded
    other = run(place, REPLAY, "name=other", "ray.keep=true")
    assert other.returncode == 0, other.stderr
    assert made.parents[2].joinpath("other", "replay_dpo", weights).read_bytes() != recorded

    page = run(place, ONE_PAGE_REPLAY)
    assert page.returncode == 0, page.stderr
    (apart,) = re.findall(r"^weights: (\S+) from", page.stdout, re.MULTILINE)
    assert float(apart) <= 1e-6


def test_the_one_page_raises_its_reward(place: Path) -> None:
    done = run(place, ONE_PAGE)
    assert (done.returncode, done.stderr) == (0, "")
    rewards = [float(found) for found in re.findall(r"reward (\S+),", done.stdout)]
    assert len(rewards) == 20
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.2


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_online_run_of_the_pages_paused_looked_at_and_resumed(place: Path) -> None:
    """With the tutorial's own prompts, reward and function."""
    page = text_of(TUTORIAL)
    (place / "prompts.jsonl").unlink()
    (place / "prompts.jsonl").write_text(block(page, "", '{"prompt"'))
    (place / "my_rewards.py").write_text(block(page, "python", "def score"))
    reward = yaml.safe_load(block(page, "yaml", "reward:"))["reward"]
    small = [*SMALL["online_dpo"], f"reward={json.dumps(reward)}"]
    small += [f"admin.port={(port := free_port())}", "ray.keep=true"]

    asked = run(place, DRY_RUN, *small)
    assert asked.returncode == 0, asked.stderr
    assert "#  1 online_dpo: will be made" in asked.stdout
    assert "#      reference: policy (the policy itself)" in asked.stdout
    assert "#      base: base (as given)" in asked.stdout

    online = subprocess.Popen(
        words(ONLINE, *small),
        cwd=place,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert online.stdout is not None
    printed = ""
    while "to pause: " not in printed:
        line = online.stdout.readline()
        assert line, printed
        printed += line
    address = ("--address", f"127.0.0.1:{port}")
    hint = printed.splitlines()[-1].split("to pause: ")[1]
    assert hint == f".venv/bin/pairloop {shlex.join(address)} episodes pause"

    watching = subprocess.Popen(
        words(WATCH, *address), cwd=place, stdout=subprocess.PIPE, text=True
    )
    states = []
    for command in (*LOOKS, "resume"):
        done = run(place, command if command in LOOKS else LOOKS[1], *address)
        assert (done.returncode, done.stderr) == (0, ""), command
        said = done.stdout.split()
        states.append(next(word for word in said if word in State.__members__))
    held = {"PAUSED", "PAUSING"}
    assert [state in held for state in states] == [True, False, True, True, False]
    shown = ""
    while "rollout-0" not in shown and online.poll() is None:  # its engine starts
        shown = run(place, WORKERS, *address).stdout
    names = [line.split()[0] for line in shown.splitlines()]
    assert names == ["worker", "rollout-0", "pairs-0"], shown
    rest, _ = online.communicate(timeout=300)
    assert online.returncode == 0, printed + rest
    foreign = re.compile(
        r"[IWEF]\d{4} |WARNING: All log|\(.*pid=|Traceback"
    )  # gRPC's, abseil's, Ray's
    assert [line for line in (printed + rest).splitlines() if foreign.match(line)] == []
    watched, _ = watching.communicate(timeout=60)
    assert watching.returncode == 0
    assert watched.splitlines()[-1] == "all episodes are over"
    assert "(a look at the pairs)" in watched

    proof = run(place, VERIFY)
    assert (proof.returncode, proof.stdout.split()[-1]) == (0, "clean"), proof.stdout

    again = run(place, FIRST, *small)
    assert again.returncode == 0, again.stderr
    assert "online_dpo: reused" in again.stdout
    assert "runs/my-online-dpo/online_dpo" in again.stdout

    # Kept for the next run, until its command ends it.
    assert STOP_RAY in commands(text_of(TUTORIAL))
    assert run(place, STOP_RAY).stdout == "ended the Ray kept under runs\n"
    assert run(place, STOP_RAY).stdout == "no Ray is kept under runs\n"
