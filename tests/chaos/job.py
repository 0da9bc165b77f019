"""The job that the storm blows over: a tiny policy, many short episodes, rewarded by rules."""

import json
import random
from pathlib import Path
from typing import Any

from services.learner.model.export import export_model
from services.learner.model.load import new_model
from services.learner.model.shape import ModelShape
from tests.unit import learner_parts

PROMPTS = 12
SHAPE = ModelShape(
    hidden_size=64, layers=2, heads=2, kv_heads=2, intermediate_size=64, max_positions=256
)
ENGINES = 2


def config(folder: Path, seed: int, episodes: int, port: int) -> Path:
    """Its policy, prompts and config in a folder; `port` is the admin API's.

    With an odd seed the learner has two ranks.
    """
    tokenizer = learner_parts.tokenizer()
    policy, base = folder / "policy", folder / "base"
    for path, start in ((policy, 0), (base, 1)):
        export_model(new_model(SHAPE, tokenizer, start), tokenizer, path)
    draw = random.Random(seed)
    rows = []
    for _ in range(64):
        words = draw.choices(learner_parts.WORDS, k=draw.randint(2, 5))
        rows.append({"prompt": " ".join(words), "metadata": {"answer": " ".join(words)}})
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    job: dict[str, Any] = {
        "job": "online_dpo",
        "seed": seed,
        "output": str(folder),
        "policy": str(policy),
        "base": str(base),
        "prompts": {"path": str(folder / "prompts.jsonl")},
        "reward": {
            "parts": [
                {"kind": "checker"}, {"kind": "function", "path": "tests.chaos.weather:score"},
            ],
            "num_cpus": 0.1, "timeout_s": 10,
        },
        "pairs": {"workers": 2},
        "sampling": {"n": 4, "max_tokens": 24},
        "episodes": {
            "count": episodes, "prompts": PROMPTS, "in_flight": 6, "timeout_s": 180,
            "max_failed": 1.0,
        },
        "engine": {"workers": ENGINES, "num_cpus": 0.1, "max_model_len": 256, "kv_cache_gib": 0.05},
        "train": {
            "optimizer": {"kind": "ondare", "lr": 1e-4, "reserve": 0.5, "alpha": 1e-3},
            "batch_size": 4, "max_length": 128, "num_cpus": 0.1, "threads": 1,
            "workers": 1 + seed % 2,
        },
        "queues": {
            "reclaim_idle_s": 5, "lease_s": 5, "max_deaths": 10, "max_failures": 10,
            "retry_s": 0.25,
        },
        "restarts": {"count": 100000, "backoff_s": 0, "silence_s": 30},
        "admin": {"port": port},
        "metrics": {"port": 0},
    }  # fmt: skip
    path = folder / "chaos.yaml"
    path.write_text(json.dumps(job))
    return path
