"""The configuration of every job: one YAML file a job, `job:` says which.

Reading, overrides and errors with line numbers are in `orchestrator/config/reading.py`; checks that
look at files are in `orchestrator/checks/preflight.py`.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from services.admin.settings import AdminSettings
from services.data.settings import DataSource, FilterSettings, TokenizerSettings
from services.learner.model.shape import ModelShape
from services.learner.settings import DPOSettings, TrainSettings
from services.pairs.settings import PairSettings
from services.queues.settings import QueueSettings
from services.reward.settings import RewardSettings
from services.rollout.settings import EngineSettings, SamplingSettings
from services.settings import Settings


class RaySettings(Settings):
    """The cluster."""

    address: str | None = None
    """Without it RAY_ADDRESS, and without that a local Ray is started."""
    num_cpus: int | None = Field(None, ge=1)
    """Logical CPUs of a local Ray; by default enough for every actor of the job."""
    object_store_gib: float = Field(0.5, gt=0.0)
    """Shared memory of a local Ray's object store."""


class _Job(Settings):
    name: str = Field("", pattern=r"^[A-Za-z0-9._-]*$")
    """Of the run, and of its folder; by default the job's kind."""
    output: str = "runs"
    """The run's folder is <output>/<name>."""
    seed: int = Field(0, ge=0, lt=2**32)
    ray: RaySettings = RaySettings()


class DemoDataJob(_Job):
    """Make the demo's data: texts of the running Python's library, instructions with answers."""

    job: Literal["demo_data"] = "demo_data"
    corpus_megabytes: float = Field(4.0, gt=0.0)
    demonstrations: int = Field(12_000, ge=1)
    corrupted: float = Field(0.4, ge=0.0, le=1.0)
    """Share of demonstrations with a mistake in them, as real ones have."""
    prompts: int = Field(4_000, ge=1)
    """For preferences and online episodes; some skills are left out of them."""
    heldout_prompts: int = Field(256, ge=1)
    """For evaluation, all skills."""


class PretrainJob(_Job):
    """Tokenizer and base model from texts."""

    job: Literal["pretrain"] = "pretrain"
    texts: DataSource
    heldout: DataSource | None = None
    """For the held-out loss; without it a hundredth of the texts is set aside."""
    tokenizer: TokenizerSettings | str = TokenizerSettings()
    """Settings of a new one, or the folder or hub name of one to use."""
    model: ModelShape = ModelShape()
    filters: FilterSettings = FilterSettings()
    sequence_length: int = Field(512, ge=16)
    """Texts are packed into rows of so many tokens."""
    train: TrainSettings = TrainSettings()


class SFTJob(_Job):
    """Supervised fine-tuning on messages; the loss is on the assistant's tokens alone."""

    job: Literal["sft"] = "sft"
    policy: str
    """The base model: folder, hub name or "@stage"."""
    demonstrations: DataSource
    train: TrainSettings = TrainSettings()


def check_sampling(sampling: SamplingSettings, engine: EngineSettings) -> None:
    """ValueError for samples that no pair can be made of, or that do not fit the engine."""
    if sampling.n < 2:
        raise ValueError("sampling.n is 1: a pair needs two answers to choose from")
    if sampling.temperature == 0:
        raise ValueError("sampling.temperature is 0: every answer to a prompt would be the same")
    if sampling.max_tokens >= engine.max_model_len:
        raise ValueError(
            f"sampling.max_tokens {sampling.max_tokens} leaves no room for a prompt in"
            f" engine.max_model_len {engine.max_model_len}"
        )


class PreferencesJob(_Job):
    """Sample answers from a policy, score them, write preference pairs."""

    job: Literal["preferences"] = "preferences"
    policy: str
    prompts: DataSource
    reward: RewardSettings
    sampling: SamplingSettings = SamplingSettings()
    pairs: PairSettings = PairSettings()
    pairs_per_prompt: int = Field(1, ge=1)
    """1: best against worst. More: that many distinct pairs above the margin, drawn by seed."""
    heldout: float = Field(0.1, ge=0.0, lt=1.0)
    """Share of the prompts whose pairs go to heldout.jsonl instead of pairs.jsonl."""
    engine: EngineSettings = EngineSettings()

    @model_validator(mode="after")
    def _samples_make_pairs(self) -> "PreferencesJob":
        check_sampling(self.sampling, self.engine)
        return self


class RewardModelJob(_Job):
    """A scalar head on a policy, trained on pairs with the Bradley-Terry loss."""

    job: Literal["reward_model"] = "reward_model"
    policy: str
    pairs: DataSource
    heldout: DataSource | None = None
    train: TrainSettings = TrainSettings()


class OfflineDPOJob(_Job):
    """DPO on a fixed preference set."""

    job: Literal["offline_dpo"] = "offline_dpo"
    policy: str
    reference: str | None = None
    """Frozen; by default the policy as it starts."""
    base: str | None = None
    """For OMO: tau_r = reference - base; by default the reference's parent by lineage."""
    pairs: DataSource
    heldout: DataSource | None = None
    dpo: DPOSettings = DPOSettings()
    train: TrainSettings = TrainSettings()


class EpisodeSettings(Settings):
    """The online loop."""

    count: int = Field(8, ge=1)
    prompts: int = Field(128, ge=1)
    """Prompts an episode."""
    max_staleness: int = Field(0, ge=0)
    """0: strictly on-policy; s: sampling may run s versions ahead of the learner."""
    in_flight: int = Field(128, ge=1)
    """Prompts between dispatch and pairing at most: what a pause has to wait for."""
    timeout_s: float = Field(3600.0, gt=0.0)
    """Longest time without any progress in an episode that is not paused."""


class SyncSettings(Settings):
    """How weights reach the engines."""

    transport: Literal["object_store"] = "object_store"
    canary_tolerance: float | None = Field(None, gt=0.0)
    """Nats; by default 5e-4 for float32 engines and 0.1 for 16-bit ones."""
    timeout_s: float = Field(300.0, gt=0.0)


class OnlineDPOJob(_Job):
    """Sample, score, pair, train, publish; episode by episode."""

    job: Literal["online_dpo"] = "online_dpo"
    policy: str
    reference: str | None = None
    """Frozen SFT reference; by default the nearest SFT ancestor of the policy, or the policy."""
    base: str | None = None
    """For OMO: tau_r = reference - base; by default the reference's parent by lineage."""
    prompts: DataSource
    reward: RewardSettings
    episodes: EpisodeSettings = EpisodeSettings()
    sampling: SamplingSettings = SamplingSettings()
    pairs: PairSettings = PairSettings()
    dpo: DPOSettings = DPOSettings()
    train: TrainSettings = TrainSettings()
    """`epochs` is passes over each episode's pairs."""
    engine: EngineSettings = EngineSettings()
    sync: SyncSettings = SyncSettings()
    queues: QueueSettings = QueueSettings()
    admin: AdminSettings = AdminSettings()

    @model_validator(mode="after")
    def _samples_make_pairs(self) -> "OnlineDPOJob":
        check_sampling(self.sampling, self.engine)
        return self

    @model_validator(mode="after")
    def _credits_cover_episodes(self) -> "OnlineDPOJob":
        # A pair holds its credit until its whole episode is trained.
        needed = self.episodes.prompts * (1 + self.episodes.max_staleness)
        if self.queues.credits < needed:
            raise ValueError(
                f"queues.credits {self.queues.credits} is less than episodes.prompts x"
                f" (1 + max_staleness) = {needed}: no episode would ever be complete"
            )
        return self


class EvaluationSettings(Settings):
    """What a policy is measured on."""

    prompts: DataSource | None = None
    """With metadata "answer" or "pattern" for the checker."""
    texts: DataSource | None = None
    """For the held-out language-model loss."""
    samples: int = Field(4, ge=1)
    """Answers a prompt at temperature 1; one more is greedy."""
    max_tokens: int = Field(64, ge=1)


class EvaluateJob(_Job):
    """Checker accuracy, sampled and greedy, by skill; held-out language-model loss."""

    job: Literal["evaluate"] = "evaluate"
    policy: str
    evaluation: EvaluationSettings
    engine: EngineSettings = EngineSettings()


Stage = Annotated[
    DemoDataJob
    | PretrainJob
    | SFTJob
    | PreferencesJob
    | RewardModelJob
    | OfflineDPOJob
    | OnlineDPOJob,
    Field(discriminator="job"),
]


class RecipeJob(_Job):
    """Jobs in order. "@name" in a stage is the folder of an earlier one."""

    job: Literal["recipe"] = "recipe"
    stages: dict[str, Stage] = Field(min_length=1)
    evaluate: EvaluationSettings | None = None
    """Run on every stage that makes a policy."""
    engine: EngineSettings = EngineSettings()
    """For evaluation."""

    @model_validator(mode="after")
    def _no_own_names(self) -> "RecipeJob":
        for key, stage in self.stages.items():
            if stage.name not in ("", key):
                raise ValueError(f"stages.{key}.name: a stage is named by its key; remove it")
        return self


Job = Annotated[
    DemoDataJob
    | PretrainJob
    | SFTJob
    | PreferencesJob
    | RewardModelJob
    | OfflineDPOJob
    | OnlineDPOJob
    | EvaluateJob
    | RecipeJob,
    Field(discriminator="job"),
]
