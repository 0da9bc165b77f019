"""One online DPO run of ours and one of TRL's, on the same model, prompts and reward."""

import json
import random
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from bench import measure, models

FOLDER = measure.ROOT / "runs" / "bench"
_PUBLISHED = "weights_published"
PROMPT_DIGITS = (16, 32)
"""Shortest and longest; a digit is a token, and the chat template adds its own."""


@dataclass(frozen=True)
class Task:
    """What both sides do: `episodes` times sample `samples` answers a prompt, and train a step."""

    policy: Path
    base: Path
    prompts: Path
    reward: str
    """A function of bench/rewards.py."""
    max_tokens: int
    max_length: int
    episodes: int
    batch: int = 16
    """Prompts an episode, pairs a step."""
    samples: int = 2
    lr: float = 1e-6
    beta: float = 0.1
    dtype: str = "float32"
    moments: str = "float32"
    """How OMO's optimizer holds them in ours."""
    tokens_at_once: int = 0
    """Through our learner; 0: as its memory plan has it."""
    engine_dtype: str = ""
    """Of our engine; "": `dtype`."""
    seed: int = 0
    kept: bool = False
    """Whether every episode's model is kept, and where it lies is told."""
    trl: tuple[str, ...] = ()
    """More options of bench/trl_online.py."""
    trl_keeps_memory: bool = False
    """Whether TRL's allocator is set as our learner sets its own."""


def task(shape: str, max_tokens: int, episodes: int) -> Task:
    """A shape of bench/models.py with random weights, and prompts of random digits."""
    folder = FOLDER / shape
    made = models.make(folder, shape)
    prompts = folder / "prompts.jsonl"
    draw, (least, most) = random.Random(0), PROMPT_DIGITS
    rows = [
        {"prompt": "".join(draw.choices("0123456789", k=least + at % (most - least + 1)))}
        for at in range(64)
    ]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return Task(made["policy"], made["base"], prompts, "score", max_tokens, 256, episodes)


def run_ours(
    task: Task, more: Mapping[str, Any] | None = None, train: Mapping[str, Any] | None = None
) -> measure.Outcome:
    """As a user runs it, with OMO; `more` replaces keys of the job, `train` keys of its training.

    `seconds` of an episode: from one's weights to the next one's.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ours-", dir=FOLDER) as name:
        folder = Path(name)
        config = folder / "job.yaml"
        job = _job(task, folder)
        job["train"] |= train or {}
        config.write_text(yaml.safe_dump(job | (more or {})), encoding="utf-8")
        run = [measure.OURS, measure.ROOT / "orchestrator" / "run.py", config]
        began = time.time()
        outcome = measure.run_arm(run)
        events = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").open()]
        result = recorded(events, began)
        if task.kept:
            result["models"] = _moved_models(folder)
        return replace(outcome, result=result)


def run_theirs(task: Task, *options: str) -> measure.Outcome:
    """TRL's OnlineDPOTrainer, with AdamW; one step is one episode, and takes its two samples."""
    command: list[str | Path] = [measure.THEIRS, "bench/trl_online.py"]
    words = {
        "policy": task.policy, "prompts": task.prompts, "reward": task.reward,
        "dtype": task.dtype, "steps": task.episodes, "batch": task.batch, "lr": task.lr,
        "max-tokens": task.max_tokens, "max-length": task.max_length, "beta": task.beta,
        "seed": task.seed,
    }  # fmt: skip
    for name, value in words.items():
        command += [f"--{name}", str(value)]
    environment = measure.KEEP_FREED_MEMORY if task.trl_keeps_memory else {}
    command += [*task.trl, *options]
    began = time.time()
    outcome = measure.run_arm(command, {"TRL_EXPERIMENTAL_SILENCE": "1", **environment})
    outcome.result["start_seconds"] = outcome.result.pop("started") - began
    return outcome


def new_folder(prefix: str) -> Path:
    """A folder for models of the way."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=prefix, dir=FOLDER))


def _job(task: Task, folder: Path) -> dict[str, Any]:
    optimizer = {"kind": "ondare", "lr": task.lr, "reserve": 0.1, "rescale": True, "alpha": 1e-6}
    return {
        "job": "online_dpo",
        "name": "run",
        "output": str(folder),
        "seed": task.seed,
        "policy": str(task.policy),
        "reference": str(task.policy),
        "base": str(task.base),
        "prompts": {"path": str(task.prompts)},
        "reward": {"parts": [{"kind": "function", "path": f"bench.rewards:{task.reward}"}]},
        "episodes": {
            "count": task.episodes,
            "prompts": task.batch,
            "timeout_s": 1800,
            "keep_every": int(task.kept),
        },
        "sampling": {"n": task.samples, "temperature": 1.0, "max_tokens": task.max_tokens},
        "dpo": {"beta": task.beta},
        "train": {
            "optimizer": optimizer | {"tau_dtype": "bfloat16", "moments": task.moments},
            "schedule": {"kind": "constant"},
            "batch_size": task.batch,
            "max_length": task.max_length,
            "micro_batch_tokens": task.tokens_at_once,
            "dtype": task.dtype,
        },
        "engine": {
            "dtype": task.engine_dtype or task.dtype,
            "max_model_len": task.max_length,
            "max_num_seqs": 256,
            "kv_cache_gib": 0.2,  # 32 answers at Qwen2-0.5B's shape take half of it
        },
        "admin": {"port": 0},
    }


def recorded(events: Sequence[Mapping[str, Any]], began: float) -> dict[str, Any]:
    """Steps as TRL's child prints them, from a run's own record; `began` is the command's time.

    An episode lasts from when the engines held the version before it until they hold its own. Its
    parts, one after the other: sampling (scoring and pairing in it, and the reference as far as it
    came), the steps, what else the learner did before its weights were ready, publishing, waiting.
    """
    held = {event["version"]: event["time"] for event in events if event["kind"] == _PUBLISHED}
    finished = [event for event in events if event["kind"] == "episode_finished"]
    steps = []
    for event in finished:
        metrics, version = event["metrics"], event["version"]
        parts = {
            "sampling": metrics["sample_seconds"],
            "step": metrics["seconds"],
            "learner beside": metrics["train_seconds"] - metrics["seconds"],
            "publishing": metrics["sync_seconds"],
        }
        seconds = held[version] - held[version - 1]
        steps.append({"seconds": seconds, **parts, "waiting": seconds - sum(parts.values())})
    return {
        "start_seconds": held[0] - began,
        "steps": steps,
        "pairs_per_step": finished[-1]["metrics"]["trained_pairs"],
    }


def _moved_models(folder: Path) -> list[str]:
    """Take the kept models out of a folder that is about to go."""
    kept = new_folder("models-")
    found = sorted(path.parent for path in folder.glob("**/episode-*/config.json"))
    return [str(shutil.move(path, kept / path.name)) for path in found]
