"""A reward model from preference pairs."""

from orchestrator.config.settings import RewardModelJob
from orchestrator.jobs.training import train
from orchestrator.stages.context import StageContext
from services.learner.jobs.reward_model import train_reward_model
from services.learner.jobs.specs import RewardModelSpec


async def run(job: RewardModelJob, context: StageContext) -> dict[str, float]:
    """Put a scalar head on the policy and train it; returns loss and held-out accuracy."""
    spec = RewardModelSpec(
        stage=context.stage,
        seed=job.seed,
        train=job.train,
        out=str(context.out),
        policy=job.policy,
        pairs=job.pairs,
        heldout=job.heldout,
    )
    return await train(train_reward_model, spec, job.train, context)
