"""DPO on a fixed preference set."""

from orchestrator.artifacts.lineage import base_of, reference_of
from orchestrator.config.settings import OfflineDPOJob
from orchestrator.jobs.training import train
from orchestrator.stages.context import StageContext
from services.learner.jobs.offline_dpo import train_offline_dpo
from services.learner.jobs.specs import OfflineDPOSpec


async def run(job: OfflineDPOJob, context: StageContext) -> dict[str, float]:
    """Train the policy against its frozen reference; returns the learner's metrics."""
    spec = OfflineDPOSpec(
        stage=context.stage,
        seed=job.seed,
        train=job.train,
        out=str(context.out),
        policy=job.policy,
        reference=reference_of(job),
        base=base_of(job),
        pairs=job.pairs,
        heldout=job.heldout,
        dpo=job.dpo,
    )
    return await train(train_offline_dpo, spec, job.train, context)
