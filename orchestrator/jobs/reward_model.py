"""A reward model from preference pairs."""

from orchestrator.config import RewardModelJob
from orchestrator.jobs.training import train
from orchestrator.work import Work
from services.learner.reward_model import train_reward_model
from services.learner.specs import RewardModelSpec


async def run(job: RewardModelJob, work: Work) -> dict[str, float]:
    """Put a scalar head on the policy and train it; returns loss and held-out accuracy."""
    spec = RewardModelSpec(
        stage=work.stage,
        seed=job.seed,
        train=job.train,
        out=str(work.out),
        policy=job.policy,
        pairs=job.pairs,
        heldout=job.heldout,
    )
    return await train(train_reward_model, spec, job.train, work)
