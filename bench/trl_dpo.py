"""TRL's DPOTrainer on fixed pairs; a child of learner_vs_trl.py.

    PYTHONPATH=. .venv-trl/bin/python bench/trl_dpo.py --policy DIR --pairs FILE ...

At its best on a CPU: reference log-probabilities computed before training, rows of like length
together, no gradient checkpointing, bf16 as autocast over float32. The last line is one JSON
object: seconds of every step and of its parts, of the reference's pass, and peak memory.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

from bench.measure import peak_rss
from bench.trl_profile import Profile


def main() -> None:
    """Train, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--policy", required=True)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--at-once", type=int, help="pairs that go through the model at once")
    parser.add_argument("--steps", type=int, required=True)
    options = parser.parse_args()
    at_once = options.at_once or options.batch
    rows = [json.loads(line) for line in options.pairs.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        row["length"] = len(row["prompt"]) + max(len(row["chosen"]), len(row["rejected"]))
    profile = Profile()
    config = DPOConfig(
        output_dir="runs/bench/trl",
        per_device_train_batch_size=at_once,
        gradient_accumulation_steps=options.batch // at_once,
        max_steps=options.steps,
        max_length=None,
        beta=0.1,
        learning_rate=1e-6,
        lr_scheduler_type="constant",
        adam_beta2=0.95,
        precompute_ref_log_probs=True,
        train_sampling_strategy="group_by_length",
        remove_unused_columns=False,  # the lengths are read from their column
        bf16=options.dtype == "bfloat16",
        gradient_checkpointing=False,
        use_cpu=True,
        logging_steps=10**6,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    began = time.perf_counter()
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(options.policy, dtype=torch.float32),
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(options.policy),
        callbacks=[profile],
    )
    trainer.compute_loss = profile.timed("forward", trainer.compute_loss)
    trainer.accelerator.backward = profile.timed("backward", trainer.accelerator.backward)
    prepared = time.perf_counter() - began
    trainer.train()
    result = {
        "before_seconds": prepared,
        "steps": profile.steps,
        "pairs_per_step": options.batch,
        "peak_rss_bytes": peak_rss(),
        "torch": torch.__version__,
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
