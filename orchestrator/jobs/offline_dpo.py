"""DPO on a fixed preference set."""

from orchestrator.config import OfflineDPOJob
from orchestrator.jobs.training import train
from orchestrator.lineage import base_of, reference_of
from orchestrator.work import Work
from services.learner.offline_dpo import train_offline_dpo
from services.learner.specs import OfflineDPOSpec


async def run(job: OfflineDPOJob, work: Work) -> dict[str, float]:
    """Train the policy against its frozen reference; returns the learner's metrics."""
    spec = OfflineDPOSpec(
        stage=work.stage,
        seed=job.seed,
        train=job.train,
        out=str(work.out),
        policy=job.policy,
        reference=reference_of(job),
        base=base_of(job),
        pairs=job.pairs,
        heldout=job.heldout,
        dpo=job.dpo,
    )
    return await train(train_offline_dpo, spec, job.train, work)
