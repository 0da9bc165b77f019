"""Our learner alone on fixed pairs: no Ray, no queues; a child of the learner benchmarks.

    .venv/bin/python bench/learner_child.py --policy DIR --base DIR --pairs FILE ...

The last line is one JSON object: seconds of every step, of the reference's pass before the first
one, operations of a step, the machine's matrix rate at its shapes, and peak memory.
"""

import argparse
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from bench.measure import peak_rss
from services.allocator import keep_freed_memory
from services.data.chat import load_tokenizer
from services.learner.losses.objectives import DirectPreference
from services.learner.model.load import load_frozen, load_policy
from services.learner.model.policy import Policy
from services.learner.model.reference import summed_pair_logprobs
from services.learner.optim.build import make_optimizer
from services.learner.settings import DPOSettings, TrainSettings
from services.learner.train.distributed import Worker
from services.learner.train.encoding import EncodedPair
from services.learner.train.limit import FlopCount, Work, matmul_rate
from services.learner.train.loop import StepReporter, train_phase
from services.learner.train.offline import prepared, reference_delta


def main() -> None:
    """Train, and print what it took: in a second thread, as a training worker does.

    Where threads allocate is each one's own, and attention's backward pass allocates in all.
    """
    with ThreadPoolExecutor(1) as thread:
        thread.submit(train, arguments()).result()


def train(options: argparse.Namespace) -> None:
    """The steps asked for."""
    keep_freed_memory()  # as a training worker does
    worker, moments = Worker.current(options.num_gpus), Moments(options.num_gpus)
    pairs = read_pairs(options.pairs, load_tokenizer(options.policy))
    settings = TrainSettings.model_validate(
        {
            "optimizer": optimizer(options.optimizer, options.moments),
            "batch_size": options.batch,
            "micro_batch_tokens": options.tokens_at_once,
            "dtype": options.dtype,
            "gradient_checkpointing": options.checkpointing,
        }
    )
    frozen = load_frozen(options.policy, settings.dtype, worker.device)
    moments.mark()
    reference = summed_pair_logprobs(frozen, pairs, worker)
    moments.mark()
    del frozen
    tau = reference_delta(options.policy, options.base, settings)
    policy = Policy(prepared(load_policy(options.policy), settings, worker), settings.dtype)
    batches = [
        list(range(at, at + options.batch))
        for at in range(0, options.batch * options.steps, options.batch)
    ]
    moments.mark()
    train_phase(
        policy,
        make_optimizer(policy.named_parameters(), settings.optimizer, tau=tau, seed=0),
        DirectPreference(policy, DPOSettings(), reference),
        pairs,
        batches,
        settings,
        lr_at=lambda _: settings.optimizer.lr,
        worker=worker,
        reporter=StepReporter(lambda _: None, "bench", len(batches)),
        after_step=lambda _: moments.mark(),
    )
    _, before, *steps = moments.between()
    counted = FlopCount.of(policy.size)
    works = [total([pairs[at] for at in batch]) for batch in batches]
    tokens = max(1, min(policy.pass_tokens, works[-1].tokens))
    dtype = getattr(torch, options.dtype)
    result = {
        "before_seconds": before,
        "steps": [{"seconds": seconds} for seconds in steps],
        "pairs_per_step": options.batch,
        "tokens": [work.tokens for work in works],
        "useful_flops": [counted.useful(work) for work in works],
        "done_flops": [counted.done(work, checkpointing=options.checkpointing) for work in works],
        "matmul_rate": matmul_rate(dtype, worker.device, counted.shapes(tokens)),
        "parameters": sum(p.numel() for p in policy.named_parameters().values()),
        "peak_rss_bytes": peak_rss(),
        "peak_gpu_bytes": torch.cuda.max_memory_allocated() if options.num_gpus else 0,
        "torch": torch.__version__,
    }
    sys.stdout.write(json.dumps(result) + "\n")


def arguments() -> argparse.Namespace:
    """What the parent asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--policy", required=True)
    parser.add_argument("--base", required=True)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tokens-at-once", type=int, default=0)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--optimizer", choices=("ondare", "adamw"), default="ondare")
    parser.add_argument("--moments", choices=("float32", "int8"), default="float32")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--num-gpus", type=int, default=0)
    return parser.parse_args()


def optimizer(kind: str, moments: str) -> dict[str, Any]:
    """Settings of AdamW, or of OMO around a reference vector in bfloat16."""
    adam = {"kind": kind, "lr": 1e-6, "moments": moments}
    if kind == "adamw":
        return adam
    return adam | {"reserve": 0.1, "rescale": True, "alpha": 1e-6, "tau_dtype": "bfloat16"}


def read_pairs(path: Path, tokenizer: Any) -> list[EncodedPair]:
    """As TRL reads them: plain texts, the end of sequence after each answer."""

    def ids(text: str) -> list[int]:
        found: list[int] = tokenizer.encode(text, add_special_tokens=False)
        return found

    end = [tokenizer.eos_token_id]
    return [
        EncodedPair(
            f"pair {at}", ids(row["prompt"]), ids(row["chosen"]) + end, ids(row["rejected"]) + end
        )
        for at, row in enumerate(map(json.loads, path.read_text(encoding="utf-8").splitlines()))
    ]


def total(pairs: list[EncodedPair]) -> Work:
    """What a step sends through the model."""
    work = Work()
    for pair in pairs:
        answers = [len(pair.chosen), len(pair.rejected)]
        work += Work.of(len(pair.prompt), answers, sum(answers))
    return work


class Moments:
    """Seconds between moments, with the device's work done."""

    def __init__(self, num_gpus: int) -> None:
        self._gpu = num_gpus > 0
        self._at = [time.perf_counter()]

    def mark(self) -> None:
        """Now."""
        if self._gpu:
            torch.cuda.synchronize()
        self._at.append(time.perf_counter())

    def between(self) -> list[float]:
        """From each to the next, the first three being: loaded, reference known, model built."""
        gaps = [after - before for before, after in zip(self._at, self._at[1:], strict=False)]
        return [gaps[0], gaps[1], *gaps[3:]]


if __name__ == "__main__":
    main()
