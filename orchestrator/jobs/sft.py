"""Supervised fine-tuning of a base model on dialogues."""

from orchestrator.config import SFTJob
from orchestrator.jobs.training import train
from orchestrator.work import Work
from services.learner.lm import train_lm
from services.learner.specs import LMSpec


async def run(job: SFTJob, work: Work) -> dict[str, float]:
    """Train on the assistant's tokens; returns the learner's metrics."""
    spec = LMSpec(
        stage=work.stage,
        seed=job.seed,
        train=job.train,
        out=str(work.out),
        policy=job.policy,
        conversations=job.demonstrations,
    )
    return await train(train_lm, spec, job.train, work)
