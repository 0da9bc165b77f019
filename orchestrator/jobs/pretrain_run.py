"""Texts -> filters -> tokenizer -> base model."""

import asyncio
import json
import random
from collections.abc import Sequence
from pathlib import Path

from orchestrator.jobs.pretrain import Pretrain
from orchestrator.jobs.training import train
from orchestrator.stages.context import StageContext
from services.data.filters import clean
from services.data.rows import read_texts
from services.data.settings import DataSource
from services.data.tokenizer import train_tokenizer
from services.errors import DataError
from services.learner.jobs.settings import PretrainSettings
from services.telemetry.record.events import Note


async def pretrain(job: Pretrain, context: StageContext) -> dict[str, float]:
    """Clean the texts, train the tokenizer unless one is given, train the model."""
    corpus = context.scratch / "corpus"
    counts, dropped = await asyncio.to_thread(_prepare, job, corpus)
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items()) if count)
    context.run.report(
        Note(
            stage=context.stage,
            text=f"kept {counts['texts']:.0f} texts; dropped {reasons or 'none'}",
        )
    )
    prepared = job.model_copy(
        update={
            "texts": DataSource(path=str(corpus / "texts.jsonl")),
            "heldout": DataSource(path=str(corpus / "heldout.jsonl")),
            "tokenizer": job.tokenizer
            if isinstance(job.tokenizer, str)
            else str(corpus / "tokenizer"),
        }
    )
    metrics = await train(
        "services.learner.jobs.lm:train_base", prepared, PretrainSettings, context
    )
    return metrics | counts | {f"dropped_{key}": float(n) for key, n in dropped.items()}


def _prepare(job: Pretrain, corpus: Path) -> tuple[dict[str, float], dict[str, int]]:
    """Write cleaned texts, held-out texts and the tokenizer into `corpus`."""
    kept, dropped = clean(read_texts(job.texts), job.filters)
    if not kept:
        raise DataError(f"{job.texts.path}: no text is left after the filters; see 'filters'")
    if job.heldout is not None:
        heldout = read_texts(job.heldout)
    else:
        random.Random(f"heldout/{job.seed}").shuffle(kept)
        count = max(1, len(kept) // 100)
        kept, heldout = kept[count:], kept[:count]
    corpus.mkdir(parents=True, exist_ok=True)
    _write(corpus / "texts.jsonl", kept)
    _write(corpus / "heldout.jsonl", heldout)
    if not isinstance(job.tokenizer, str):
        train_tokenizer(kept, job.tokenizer).save_pretrained(corpus / "tokenizer")
    return {"texts": float(len(kept)), "heldout_texts": float(len(heldout))}, dropped


def _write(path: Path, texts: Sequence[str]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
