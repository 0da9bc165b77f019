"""Sample answers from a policy, score them, write preference pairs."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any

from orchestrator.jobs.preference_scores import score, told_lost
from orchestrator.jobs.preferences import Preferences
from orchestrator.online.prompts import make_prompt
from orchestrator.stages.context import StageContext
from pairloop.data.v1.pair_pb2 import DropReason, Score
from pairloop.data.v1.rollout_pb2 import Rollout
from services.data.messages import plain_messages
from services.data.rows import read_prompts
from services.errors import DataError
from services.pairs.sampled_examples import about
from services.pairs.select import Selection, all_pairs, select
from services.telemetry.format import reasons
from services.telemetry.record.events import PairExample

_EXAMPLES = 6


async def make_preferences(job: Preferences, context: StageContext) -> dict[str, float]:
    """Fill the artifact with pairs.jsonl and heldout.jsonl; returns counts and mean rewards."""
    rows = read_prompts(job.prompts)
    workers = await context.run.engines.with_weights(job.policy, job.engine)
    rendered = await context.run.engines.render(workers, job.policy, [r.messages for r in rows])
    prompts = [
        make_prompt(
            row,
            text_and_ids,
            job.sampling,
            run=context.stage,
            episode=0,
            index=index,
            dataset_row=index,
            seed=job.seed,
        )
        for index, (row, text_and_ids) in enumerate(zip(rows, rendered, strict=True))
    ]
    rollouts = await context.run.engines.generate(workers, prompts)
    scores = await score(job.reward, rollouts)
    if lost := told_lost(rollouts, scores, job.max_failed):
        context.warn(lost)
    return await asyncio.to_thread(_write, job, context, rollouts, scores)


def _write(
    job: Preferences,
    context: StageContext,
    rollouts: Sequence[Rollout],
    scores: Sequence[list[Score] | str],
) -> dict[str, float]:
    counts: Counter[str] = Counter()
    held = set(random.Random(f"held/{job.seed}").sample(
        range(len(rollouts)), int(len(rollouts) * job.heldout)
    ))  # fmt: skip
    context.out.mkdir(parents=True, exist_ok=True)
    with (
        (context.out / "pairs.jsonl").open("w", encoding="utf-8") as train,
        (context.out / "heldout.jsonl").open("w", encoding="utf-8") as heldout,
    ):
        for index, (rollout, group) in enumerate(zip(rollouts, scores, strict=True)):
            if isinstance(group, str):
                counts["dropped_error"] += 1
                continue
            for selection in _select(job, rollout, group, index, counts):
                row = _row(rollout, group, selection)
                file, name = (heldout, "heldout_pairs") if index in held else (train, "pairs")
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                if counts["pairs"] < _EXAMPLES and name == "pairs":
                    context.run.report(_example(context.stage, rollout, group, selection))
                counts[name] += 1
    if not counts["pairs"]:
        why = reasons({name.removeprefix("dropped_"): n for name, n in counts.items()})
        raise DataError(
            f"{context.stage}: none of the {len(rollouts)} prompts gave a pair to train on ({why});"
            " see sampling, pairs and heldout"
        )
    totals = [one.total for group in scores if not isinstance(group, str) for one in group]
    counted = {key: float(count) for key, count in counts.items()}
    return counted | {"prompts": float(len(rollouts)), "reward_mean": fmean(totals)}


def _select(
    job: Preferences, rollout: Rollout, scores: list[Score], index: int, counts: Counter[str]
) -> Iterator[Selection]:
    totals = [score.total for score in scores]
    answers = [sample.text for sample in rollout.samples]
    margin, seed = job.pairs.min_margin, job.seed + index
    if job.pairs_per_prompt > 1:
        found = all_pairs(totals, answers, margin, job.pairs_per_prompt, seed)
        if found:
            yield from found
            return
    choice = select(totals, answers, margin, seed)  # without any pair: why there is none
    if isinstance(choice, Selection):
        yield choice
    else:
        counts[f"dropped_{DropReason.Name(choice).removeprefix('DROP_REASON_').lower()}"] += 1


def _row(rollout: Rollout, scores: list[Score], selection: Selection) -> dict[str, Any]:
    """In the form that read_pairs reads."""
    prompt = rollout.prompt
    return {
        "prompt": plain_messages(prompt),
        "chosen": rollout.samples[selection.chosen].text,
        "rejected": rollout.samples[selection.rejected].text,
        "chosen_score": scores[selection.chosen].total,
        "rejected_score": scores[selection.rejected].total,
        "metadata": dict(prompt.metadata),
    }


def _example(
    stage: str, rollout: Rollout, scores: list[Score], selection: Selection
) -> PairExample:
    chosen, rejected = scores[selection.chosen], scores[selection.rejected]
    return PairExample(
        stage=stage,
        episode=0,
        id=f"{rollout.prompt.id}/{selection.chosen}-{selection.rejected}",
        prompt=rollout.prompt.messages[-1].content,
        messages=plain_messages(rollout.prompt),
        chosen=rollout.samples[selection.chosen].text,
        rejected=rollout.samples[selection.rejected].text,
        chosen_about=about(rollout.samples[selection.chosen]),
        rejected_about=about(rollout.samples[selection.rejected]),
        chosen_score=chosen.total,
        rejected_score=rejected.total,
        parts={name: (chosen.parts[name], rejected.parts[name]) for name in chosen.parts},
        metadata=dict(rollout.prompt.metadata),
    )
