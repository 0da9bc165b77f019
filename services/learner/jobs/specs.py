"""What one training job is told: plain settings, so that they travel to any worker."""

from pydantic import Field, SecretStr, model_validator

from services.data.settings import DataSource
from services.learner.model.shape import ModelShape
from services.learner.settings import DPOSettings, TrainSettings
from services.queues.settings import QueueSettings
from services.settings import Settings


class _Spec(Settings):
    stage: str
    """Named in progress events."""
    seed: int = Field(0, ge=0)
    train: TrainSettings = TrainSettings()


class LMSpec(_Spec):
    """Pre-training (shape, tokenizer, texts) or SFT (policy, conversations)."""

    out: str
    """Folder the model is written to."""
    shape: ModelShape | None = None
    """Of a new model; without it `policy` is trained further."""
    policy: str | None = None
    tokenizer: str | None = None
    """Folder or hub name; by default the policy's."""
    texts: DataSource | None = None
    conversations: DataSource | None = None
    heldout: DataSource | None = None
    """Of the same kind as what is trained on; gives heldout_loss and heldout_tokens."""
    sequence_length: int = Field(512, ge=16)
    """Texts are packed into rows of so many tokens."""

    @model_validator(mode="after")
    def _one_of_each(self) -> "LMSpec":
        if (self.shape is None) == (self.policy is None):
            raise ValueError("give either shape (a new model) or policy (one to train further)")
        if (self.texts is None) == (self.conversations is None):
            raise ValueError("give either texts or conversations")
        if self.shape is not None and self.tokenizer is None:
            raise ValueError("a new model needs a tokenizer")
        return self


class RewardModelSpec(_Spec):
    """A scalar head on a policy, trained on pairs."""

    out: str
    policy: str
    pairs: DataSource
    heldout: DataSource | None = None
    """Gives heldout_accuracy, heldout_loss, heldout_margin, heldout_pairs."""


class OfflineDPOSpec(_Spec):
    """DPO on a fixed preference set."""

    out: str
    policy: str
    reference: str
    """Frozen."""
    base: str | None = None
    """For OMO: tau_r = reference - base."""
    pairs: DataSource
    heldout: DataSource | None = None
    dpo: DPOSettings = DPOSettings()


class OnlineSpec(_Spec):
    """The learner's side of an online run."""

    run: str
    redis_url: SecretStr
    """May hold a password: shown nowhere."""
    queues: QueueSettings = QueueSettings()
    policy: str
    """The policy as the run starts: version 0."""
    reference: str
    base: str | None = None
    dpo: DPOSettings = DPOSettings()
    episodes: int = Field(ge=1)
    prompts_per_episode: int = Field(ge=1)
    max_staleness: int = Field(0, ge=0)
    folder: str
    """Checkpoints are kept in <folder>/checkpoints; on storage every worker sees."""
    out: str
    """Folder the last version is written to."""
    canary_tokens: list[int]
    """A fixed text; its log-probabilities go out with every version."""
    canary_tolerance: float = Field(5e-4, gt=0.0)
    """Nats."""
    timeout_s: float = Field(3600.0, gt=0.0)
    """Longest wait without a change in an episode that is not paused."""
