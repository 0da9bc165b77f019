"""Does the last phase of pre-training teach longer contexts? Some ten minutes on 2 cores.

    .venv/bin/python bench/context_extension.py [--steps 300] [--seed 0]

A small model is trained on rows of 128 tokens with RoPE base 200, then by the job's own
`context_extension` on rows of 512 with base 10,000, a quarter as many steps. On held-out texts the
loss (nats a token) is taken by the position of the token, under four models:

    before        as it is after the first phase
    base alone    the same weights, base 10,000
    yarn          the same weights, base 200, YaRN with factor 4
    extended      after the second phase

and, for the tokens from 384 to 512 on, what the whole context is worth: the loss with the last 128
tokens before them alone, minus the loss with all. Below zero, what stands further back does harm.
Starting at base 10,000 would hide the effect. The last line of the output is JSON.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from services.data.chat import load_tokenizer
from services.data.demo_corpus import library_corpus
from services.data.settings import DataSource, TokenizerSettings
from services.data.tokenizer import train_tokenizer
from services.learner.jobs.lm import train_base
from services.learner.jobs.settings import ContextExtension, Place, PretrainSettings
from services.learner.model.load import load_policy
from services.learner.model.rope import set_rope
from services.learner.model.shape import ModelShape
from services.learner.settings import AdamWSettings, ScheduleSettings, TrainSettings
from services.telemetry.record.events import Event, Note

BEFORE, AFTER = 128, 512
SMALL, LARGE = 200.0, 10_000.0
BUCKETS = ((1, 32), (32, 64), (64, 128), (128, 192), (192, 256), (256, 384), (384, 512))
SHAPE = ModelShape(
    hidden_size=128,
    layers=4,
    heads=4,
    kv_heads=2,
    intermediate_size=344,
    rope_theta=SMALL,
    max_positions=BEFORE,
    initializer_range=0.06,
)


def main() -> None:
    """Train both phases, measure the four models, print a table and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--steps", type=int, default=300, help="of the first phase")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measured(Path(folder), given.steps, given.seed)
    print(table(result["loss"], result["worth"]))
    print(json.dumps(result))


def measured(folder: Path, steps: int, seed: int) -> dict[str, Any]:
    """Losses by model and bucket, and what the context is worth, after training in `folder`."""
    corpus = library_corpus(4.0)
    tokenizer = train_tokenizer(corpus.texts, TokenizerSettings(vocab_size=2048))
    tokenizer.save_pretrained(folder / "tokenizer")
    texts = folder / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": text}) + "\n" for text in corpus.texts))
    settings = PretrainSettings(
        texts=DataSource(path=str(texts)),
        tokenizer=str(folder / "tokenizer"),
        model=SHAPE,
        sequence_length=BEFORE,
        context_extension=ContextExtension(sequence_length=AFTER, rope_theta=LARGE, share=0.25),
        train=TrainSettings(
            optimizer=AdamWSettings(lr=2e-3, weight_decay=0.1),
            schedule=ScheduleSettings(warmup_ratio=0.02, min_ratio=0.1),
            batch_size=16,
            max_steps=steps,
            keep_every=steps,
        ),
    )
    place = Place(stage="x", seed=seed, out=str(folder / "out"), kept=str(folder / "kept"))
    started = time.monotonic()
    metrics = train_base(settings, place, say)
    seconds = time.monotonic() - started
    first = folder / "kept" / f"step-{steps:06d}"
    held = rows(folder / "out", corpus.heldout)
    models = {
        "before": load_policy(str(first)),
        "base alone": load_policy(str(first)),
        "yarn": load_policy(str(first)),
        "extended": load_policy(str(folder / "out")),
    }
    set_rope(models["base alone"], LARGE, AFTER)
    set_rope(models["yarn"], SMALL, BEFORE, yarn_factor=AFTER / BEFORE)
    loss, worth = {}, {}
    for name, model in models.items():
        whole = losses(model, held)
        loss[name] = {f"{a}-{b}": float(whole[:, a - 1 : b - 1].mean()) for a, b in BUCKETS}
        late = whole[:, AFTER - BEFORE - 1 :].mean()
        worth[name] = float(truncated(model, held) - late)
    return {
        "loss": loss,
        "worth": worth,
        "steps": metrics["steps"],
        "seconds": seconds,
        "texts": len(held),
        "long_share": metrics["long_share"],
    }


def say(event: Event) -> None:
    """Notes alone."""
    if isinstance(event, Note):
        print(event.text)


def rows(model: Path, texts: Sequence[str]) -> Tensor:
    """int64 [texts, AFTER]: the beginnings of the held-out texts that are as long."""
    tokenizer = load_tokenizer(str(model))
    found = [tokenizer.encode(text, add_special_tokens=False)[:AFTER] for text in texts]
    return torch.tensor([ids for ids in found if len(ids) == AFTER])


def losses(model: Any, ids: Tensor) -> Tensor:
    """float32 [rows, tokens - 1]: the loss of each token but the first, nats."""
    found = []
    with torch.no_grad():
        for part in ids.split(8):
            logprobs = torch.log_softmax(model(part[:, :-1]).logits.float(), -1)
            found.append(-logprobs.gather(-1, part[:, 1:, None])[..., 0])
    return torch.cat(found)


def truncated(model: Any, ids: Tensor) -> Tensor:
    """Mean loss from AFTER - BEFORE on, each seeing 64 to 128 tokens before it alone."""
    found = []
    for start in range(AFTER - BEFORE, AFTER, 64):
        # Windows of 128 of which the second half counts.
        found.append(losses(model, ids[:, start - 64 : start + 64])[:, 63:])
    return torch.cat(found, dim=1).mean()


def table(loss: dict[str, dict[str, float]], worth: dict[str, float]) -> str:
    """The losses as lines of columns."""
    buckets = [f"{a}-{b}" for a, b in BUCKETS]
    lines = ["model".ljust(12) + "".join(name.rjust(9) for name in [*buckets, "context"])]
    for name, found in loss.items():
        values = [*(found[bucket] for bucket in buckets), worth[name]]
        lines.append(name.ljust(12) + "".join(f"{value:9.3f}" for value in values))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
