"""Supervised fine-tuning of a base model on dialogues."""

from orchestrator.config.settings import SFTJob
from orchestrator.jobs.training import train
from orchestrator.stages.context import StageContext
from services.learner.jobs.lm import train_lm
from services.learner.jobs.specs import LMSpec


async def run(job: SFTJob, context: StageContext) -> dict[str, float]:
    """Train on the assistant's tokens; returns the learner's metrics."""
    spec = LMSpec(
        stage=context.stage,
        seed=job.seed,
        train=job.train,
        out=str(context.out),
        policy=job.policy,
        conversations=job.demonstrations,
    )
    return await train(train_lm, spec, job.train, context)
