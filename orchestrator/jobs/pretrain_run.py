"""Texts -> filters -> tokenizer -> base model."""

import asyncio
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.jobs.pretrain import Pretrain
from orchestrator.jobs.training import train
from orchestrator.stages.context import StageContext
from services.data.filters import clean
from services.data.rows import read_texts
from services.data.settings import DataSource
from services.data.tokenizer import train_tokenizer
from services.errors import DataError
from services.learner.jobs.settings import PretrainSettings
from services.learner.train.durable import replaced_folder
from services.telemetry.record.events import Note

_TEXTS, _HELDOUT, _LONG, _COUNTS = "texts.jsonl", "heldout.jsonl", "long.jsonl", "counts.json"


async def pretrain(job: Pretrain, context: StageContext) -> dict[str, float]:
    """Clean the texts, train the tokenizer unless one is given, train the model.

    What is made before the training is kept in the scratch folder: an interrupted job has it.
    """
    corpus = context.scratch / "corpus"
    if not corpus.exists():
        await asyncio.to_thread(prepare, job, corpus)
        counts = _counts(corpus)
        context.run.report(Note(stage=context.stage, text=_said(counts)))
    metrics = await train(
        "services.learner.jobs.lm:train_base", prepared(job, corpus), PretrainSettings, context
    )
    return metrics | _counts(corpus)


def prepare(job: Pretrain, corpus: Path) -> None:
    """Make the folder `corpus`, whole or not at all: cleaned texts, held-out texts, tokenizer."""
    kept, dropped = clean(read_texts(job.texts), job.filters)
    if not kept:
        raise DataError(f"{job.texts.path}: no text is left after the filters; see 'filters'")
    if job.heldout is not None:
        heldout = read_texts(job.heldout)
    else:
        random.Random(f"heldout/{job.seed}").shuffle(kept)
        count = max(1, len(kept) // 100)
        kept, heldout = kept[count:], kept[:count]
    counts = {"texts": len(kept), "heldout_texts": len(heldout)}
    with replaced_folder(corpus) as fresh:
        _write(fresh / _TEXTS, kept)
        _write(fresh / _HELDOUT, heldout)
        if job.context_extension is not None and job.context_extension.texts is not None:
            long, _ = clean(read_texts(job.context_extension.texts), job.filters)
            if not long:
                raise DataError(
                    f"{job.context_extension.texts.path}: no text is left after the filters; see"
                    " 'filters'"
                )
            _write(fresh / _LONG, long)
            counts["long_texts"] = len(long)
        if not isinstance(job.tokenizer, str):
            train_tokenizer(kept, job.tokenizer).save_pretrained(fresh / "tokenizer")
        counts |= {f"dropped_{reason}": n for reason, n in sorted(dropped.items())}
        (fresh / _COUNTS).write_text(json.dumps(counts), encoding="utf-8")


def prepared(job: Pretrain, corpus: Path) -> Pretrain:
    """The job on what `prepare` has made."""
    changed: dict[str, Any] = {
        "texts": DataSource(path=str(corpus / _TEXTS)),
        "heldout": DataSource(path=str(corpus / _HELDOUT)),
    }
    if not isinstance(job.tokenizer, str):
        changed["tokenizer"] = str(corpus / "tokenizer")
    longer = job.context_extension
    if longer is not None and longer.texts is not None:
        long = {"texts": DataSource(path=str(corpus / _LONG))}
        changed["context_extension"] = longer.model_copy(update=long)
    return job.model_copy(update=changed)


def _counts(corpus: Path) -> dict[str, float]:
    """Texts kept, held out and dropped by reason: part of the job's metrics."""
    found = json.loads((corpus / _COUNTS).read_text(encoding="utf-8"))
    return {name: float(count) for name, count in found.items()}


def _said(counts: Mapping[str, float]) -> str:
    dropped = {key: n for key, n in counts.items() if key.startswith("dropped_")}
    reasons = [f"{n:.0f} {key.removeprefix('dropped_')}" for key, n in dropped.items()]
    return f"kept {counts['texts']:.0f} texts; dropped {', '.join(reasons) or 'none'}"


def _write(path: Path, texts: Sequence[str]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
