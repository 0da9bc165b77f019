"""TRL's OnlineDPOTrainer on one of our model folders; a child of online_vs_trl.py.

    PYTHONPATH=. .venv-trl/bin/python bench/trl_online.py --policy DIR --prompts FILE ...

Prints, as its last line, one JSON object: the seconds of every step and of its parts, and the
process's peak memory. It samples with transformers' generate, as vLLM's CPU build does not go
into TRL's process (docs/benchmarks.md).
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer

from bench import rewards
from bench.measure import peak_rss
from bench.trl_profile import Profile


def main() -> None:
    """Train, and print what it took."""
    options = arguments()
    profile = Profile(options.save_every, options.out)
    trainer = new_trainer(options, profile)
    forward, reference = trainer._forward, trainer.ref_model
    as_policy, as_reference = profile.timed("forward", forward), profile.timed("reference", forward)
    trainer._forward = lambda model, *rest: (
        as_reference(model, *rest) if model is reference else as_policy(model, *rest)
    )
    trainer._generate = profile.timed("sampling", trainer._generate)
    trainer._calculate_rewards_from_functions = profile.timed(
        "scoring", trainer._calculate_rewards_from_functions
    )
    trainer.accelerator.backward = profile.timed("backward", trainer.accelerator.backward)
    started = time.time()
    trainer.train()
    result = {
        "started": started,
        "steps": profile.steps,
        "pairs_per_step": options.batch,
        "peak_rss_bytes": peak_rss(),
        "torch": torch.__version__,
    }
    sys.stdout.write(json.dumps(result) + "\n")


def arguments() -> argparse.Namespace:
    """What the parent asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--policy", required=True)
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--reward", choices=("score", "checked"), default="score")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--at-once", type=int, help="pairs that are sampled and trained at once")
    parser.add_argument("--max-tokens", type=int, required=True)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--lr", type=float, default=1e-6)
    parser.add_argument("--beta", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", default=None, help="transformers' cache_implementation")
    parser.add_argument("--save-every", type=int, default=1)
    parser.add_argument("--out", type=Path, help="where models of the way are saved")
    return parser.parse_args()


def new_trainer(options: argparse.Namespace, profile: Profile) -> OnlineDPOTrainer:
    """TRL's trainer, at its best on a CPU."""
    reward = getattr(rewards, options.reward)

    def rewarded(prompts: Any, completions: Any, metadata: Any, **_: Any) -> list[float]:
        return [
            reward(prompt[-1]["content"], completion[0]["content"], json.loads(about))
            for prompt, completion, about in zip(prompts, completions, metadata, strict=True)
        ]

    at_once = options.at_once or options.batch
    config = OnlineDPOConfig(
        output_dir="runs/bench/trl",
        per_device_train_batch_size=at_once,
        gradient_accumulation_steps=options.batch // at_once,
        max_steps=options.steps,
        max_new_tokens=options.max_tokens,
        max_length=options.max_length,
        temperature=1.0,
        beta=options.beta,
        learning_rate=options.lr,
        lr_scheduler_type="constant",
        adam_beta2=0.95,
        seed=options.seed,
        bf16=options.dtype == "bfloat16",
        gradient_checkpointing=False,
        cache_implementation=options.cache,
        use_cpu=True,
        logging_steps=10**6,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    return OnlineDPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(options.policy, dtype=torch.float32),
        reward_funcs=rewarded,
        args=config,
        train_dataset=Dataset.from_list(read_prompts(options.prompts)),
        processing_class=AutoTokenizer.from_pretrained(options.policy),
        callbacks=[profile],
    )


def read_prompts(path: Path) -> list[dict[str, Any]]:
    """Rows of a prompts file: messages, and the metadata as one JSON text."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        messages = row.get("messages") or [{"role": "user", "content": row["prompt"]}]
        rows.append({"prompt": messages, "metadata": json.dumps(row.get("metadata", {}))})
    return rows


if __name__ == "__main__":
    main()
