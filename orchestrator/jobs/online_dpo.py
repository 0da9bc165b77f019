"""Online DPO: sample, score, pair, train, publish; episode by episode."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import model_validator

from orchestrator.artifacts.lineage import Lineage, Parent, check_alignment
from orchestrator.artifacts.store import LEARNER
from orchestrator.checks.sampling import (
    check_sampled_policy,
    check_sampling,
    sampling_warnings,
)
from orchestrator.checks.training import episode_warnings
from orchestrator.jobs.job import Listener
from orchestrator.jobs.policy_job import PolicyJob
from orchestrator.online.settings import RestartSettings
from services.access.tokens import Access
from services.data.settings import DataSource
from services.inputs import Rows
from services.learner.jobs.settings import OnlineDPOSettings
from services.pairs.settings import PairSettings
from services.queues.ledger_file import LEDGER, read_ledger_file
from services.queues.settings import QueueSettings
from services.reward.settings import RewardSettings
from services.rollout.settings import EngineSettings, SamplingSettings
from services.settings import Operational
from services.weights.settings import SyncSettings

if TYPE_CHECKING:
    from orchestrator.stages.context import StageContext


class OnlineDPO(OnlineDPOSettings, PolicyJob):
    """Sample, score, pair, train, publish; episode by episode."""

    aligns: ClassVar[bool] = True
    resume: ClassVar[str] = LEARNER

    job: Literal["online_dpo"] = "online_dpo"
    prompts: Annotated[DataSource, Rows("prompts")]
    """What it answers; each episode takes the next ones."""
    reward: RewardSettings
    sampling: SamplingSettings = SamplingSettings()
    pairs: PairSettings = PairSettings()
    engine: EngineSettings = EngineSettings()
    """Samples, and answers the prompts of an evaluation."""
    sync: Operational[SyncSettings] = SyncSettings()
    restarts: Operational[RestartSettings] = RestartSettings()

    @model_validator(mode="after")
    def _samples_make_pairs(self) -> "OnlineDPO":
        check_sampling(self.sampling, self.engine)
        return self

    @model_validator(mode="after")
    def _credits_cover_episodes(self) -> "OnlineDPO":
        # A pair holds its credit until its whole episode is trained.
        needed = self.episodes.prompts * (1 + self.episodes.max_staleness)
        if self.queues.credits < needed:
            raise ValueError(
                f"queues.credits {self.queues.credits} is less than episodes.prompts x"
                f" (1 + max_staleness) = {needed}: no episode would ever be complete"
            )
        return self

    def parents(self, lineage: Lineage) -> Mapping[str, Parent]:
        """Reference and base."""
        return lineage.alignment(self)

    def check(self, lineage: Lineage) -> None:
        """Who may call, models of one shape and tokenizer, an engine that holds them, prompts that
        score."""
        Access.configured(self.reward.tokens)
        check_alignment(self.policy, self.parents(lineage))
        check_sampled_policy(
            self.policy, self.engine, self.sampling, self.reward, self.prompts, lineage
        )

    def warnings(self) -> Sequence[str]:
        """Of the optimizer, the warm-up, the prompts and reward functions."""
        return [
            *episode_warnings(self.train, self.episodes, self.prompts),
            *sampling_warnings(self.policy, self.engine, self.sampling, self.reward, self.prompts),
        ]

    def engines(self) -> Sequence[EngineSettings]:
        """One kind."""
        return [self.engine]

    def listeners(self) -> Sequence[Listener]:
        """The reward gateway's."""
        return [Listener(self.reward.host, self.reward.port, "reward.port", every_node=True)]

    def redis(self) -> QueueSettings:
        """Every stream and every episode is there."""
        return self.queues

    def records(self) -> bool:
        """When asked to."""
        return self.record

    def preference_prompts(self) -> Sequence[DataSource]:
        """All."""
        return [self.prompts]

    def made_nothing(self, folder: Path, metrics: Mapping[str, float]) -> bool:
        """By the ledger: the metrics are those of the last episode alone."""
        try:
            events = read_ledger_file(folder / LEDGER)
            return not any(event.kind == "trained" for event in events)
        except FileNotFoundError:
            return False

    async def run(self, context: "StageContext") -> dict[str, float]:
        """Run every episode; the artifact is the last version. An interrupted run goes on."""
        from orchestrator.online.run import run_online

        return await run_online(self.model_copy(update=context.parents), context)
