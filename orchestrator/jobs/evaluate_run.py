"""Measure a policy: checker accuracy by skill, sampled and greedy; held-out language-model loss."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Collection, Sequence
from statistics import fmean

import ray

from orchestrator.jobs.evaluate import RESULT, Evaluate, EvaluationSettings
from orchestrator.jobs.evaluation_answers import ANSWERS, right, write_answers
from orchestrator.online.prompts import make_prompt
from orchestrator.stages.context import RunContext, StageContext
from pairloop.data.v1.rollout_pb2 import Rollout
from services.data.rows import read_prompts
from services.data.settings import DataSource
from services.rollout.settings import SamplingSettings
from services.telemetry.record.events import Evaluated, SkillAccuracy

ANY = "all"
"""The skill of prompts that name none."""


async def evaluate(job: Evaluate, context: StageContext) -> dict[str, float]:
    """Measure the policy; the artifact is evaluation.json, and answers.jsonl where prompts were
    answered. Returns the main figures."""
    started = time.monotonic()
    settings = job.evaluation
    loss, answers = await asyncio.gather(
        _held_out_loss(job.policy, settings), _answers(job, context.run)
    )
    preferred = _skills(job.preferences_from)
    result = _result(context.stage, loss, answers, preferred, time.monotonic() - started)
    result = result.model_copy(update={"policy": job.measures or job.policy})
    context.out.mkdir(parents=True, exist_ok=True)
    text = result.model_dump_json(indent=2)
    (context.out / RESULT).write_text(text + "\n", encoding="utf-8")
    if answers is not None:
        write_answers(context.out / ANSWERS, *answers)
    context.run.report(result)
    figures = {"sampled": result.sampled, "greedy": result.greedy, "lm_loss": result.lm_loss}
    return {name: value for name, value in figures.items() if value is not None}


def _skills(sources: Sequence[DataSource]) -> set[str]:
    """Those that prompts of these sources name."""
    return {row.metadata.get("skill", ANY) for source in sources for row in read_prompts(source)}


async def _held_out_loss(policy: str, settings: EvaluationSettings) -> tuple[float, int] | None:
    if settings.texts is None:
        return None
    task = ray.remote(num_cpus=1)(_evaluate_texts)
    found: tuple[float, int] = await task.remote(policy, settings.texts)
    return found


def _evaluate_texts(policy: str, texts: DataSource) -> tuple[float, int]:
    from services.learner.jobs.evaluate_lm import evaluate_texts  # torch: in the task alone

    return evaluate_texts(policy, texts)


async def _answers(job: Evaluate, run: RunContext) -> tuple[list[Rollout], list[Rollout]] | None:
    """Sampled and greedy rollouts of every held-out prompt."""
    settings = job.evaluation
    if settings.prompts is None:
        return None
    rows = read_prompts(settings.prompts)
    workers = await run.engines.with_weights(job.policy, job.engine)
    rendered = await run.engines.render(workers, job.policy, [row.messages for row in rows])
    sampled = SamplingSettings(n=settings.samples, max_tokens=settings.max_tokens)
    greedy = SamplingSettings(n=1, temperature=0.0, max_tokens=settings.max_tokens)
    prompts = [
        make_prompt(
            row,
            text_and_ids,
            sampling,
            run=f"evaluation-{name}",
            episode=0,
            index=index,
            dataset_row=index,
            seed=job.seed,
        )
        for name, sampling in (("sampled", sampled), ("greedy", greedy))
        for index, (row, text_and_ids) in enumerate(zip(rows, rendered, strict=True))
    ]
    rollouts = await run.engines.generate(workers, prompts)
    return rollouts[: len(rows)], rollouts[len(rows) :]


def _result(
    stage: str,
    loss: tuple[float, int] | None,
    answers: tuple[list[Rollout], list[Rollout]] | None,
    preferred: Collection[str],
    seconds: float,
) -> Evaluated:
    measured = Evaluated(stage=stage, seconds=seconds)
    if loss is not None:
        measured = measured.model_copy(update={"lm_loss": loss[0], "lm_tokens": loss[1]})
    if answers is None:
        return measured
    sampled, greedy = (_right(rollouts) for rollouts in answers)
    skills = {
        skill: SkillAccuracy(
            sampled=fmean(sampled[skill]),
            sampled_n=len(sampled[skill]),
            greedy=fmean(greedy[skill]),
            greedy_n=len(greedy[skill]),
            in_preferences=not preferred or skill in preferred,
        )
        for skill in sorted(sampled)
    }
    every_sampled = [right for skill in sampled.values() for right in skill]
    every_greedy = [right for skill in greedy.values() for right in skill]
    return measured.model_copy(
        update={
            "sampled": fmean(every_sampled),
            "sampled_n": len(every_sampled),
            "greedy": fmean(every_greedy),
            "greedy_n": len(every_greedy),
            "skills": skills,
        }
    )


def _right(rollouts: Sequence[Rollout]) -> dict[str, list[float]]:
    """1 or 0 an answer, by skill."""
    found: dict[str, list[float]] = defaultdict(list)
    for rollout in rollouts:
        found[rollout.prompt.metadata.get("skill", ANY)] += right(rollout)
    return found
