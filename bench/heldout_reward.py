"""Held-out reward of model folders: one evaluator, whoever trained them.

    .venv/bin/python bench/heldout_reward.py --prompts heldout_prompts.jsonl MODEL ...

Answers every prompt `--samples` times at temperature 1 with transformers' generate, and pays by
bench/rewards.py's `checked`. The last line is {"rewards": [mean of each model]}.
"""

import argparse
import json
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from bench.rewards import checked

_ROWS = 512


def main() -> None:
    """Evaluate."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("models", nargs="+")
    options = parser.parse_args()
    logging.disable_progress_bar()
    rows = [json.loads(line) for line in options.prompts.read_text().splitlines()]
    rewards = [
        reward(model, rows, options.samples, options.max_tokens, options.seed)
        for model in options.models
    ]
    sys.stdout.write(json.dumps({"rewards": rewards}) + "\n")


def reward(
    folder: str, rows: list[dict[str, Any]], samples: int, max_tokens: int, seed: int
) -> float:
    """Mean over all answers."""
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ends = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    torch.manual_seed(seed)
    paid: list[float] = []
    every = rows * samples
    for at in range(0, len(every), _ROWS):
        part = every[at : at + _ROWS]
        texts = [
            tokenizer.apply_chat_template(
                row["messages"], tokenize=False, add_generation_prompt=True
            )
            for row in part
        ]
        ids = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.inference_mode():
            out = model.generate(
                input_ids=ids["input_ids"],
                attention_mask=ids["attention_mask"],
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                max_new_tokens=max_tokens,
                eos_token_id=ends,
                pad_token_id=tokenizer.pad_token_id,
            )
        answers = tokenizer.batch_decode(
            out[:, ids["input_ids"].shape[1] :], skip_special_tokens=True
        )
        paid += [
            checked("", answer, row["metadata"]) for answer, row in zip(answers, part, strict=True)
        ]
    return fmean(paid)


if __name__ == "__main__":
    main()
