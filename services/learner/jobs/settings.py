"""What each training job is told: its settings, and the place it runs at.

The settings are the part of a job's config that the learner needs (orchestrator/jobs/ adds the
rest); the place is what no config says: the stage, its folder, its run.
"""

from typing import Annotated, Literal

from pydantic import Field, SecretStr, model_validator

from services.data.settings import DataSource, TokenizerSettings
from services.inputs import ModelPath, OptionalModelPath, Rollouts, Rows, Tokenizer
from services.learner.model.shape import ModelShape
from services.learner.settings import AdamWSettings, DPOSettings, TrainSettings
from services.queues.settings import EpisodeSettings, QueueSettings
from services.settings import Operational, Settings


class ContextExtension(Settings):
    """A last phase of pre-training on longer rows at a larger RoPE base (arXiv 2407.10671, 3.2).

    The learning rate's schedule and the optimizer's moments go on through it.
    """

    sequence_length: int = Field(ge=32)
    """Tokens of a row, more than before; the model's positions are then so many."""
    rope_theta: float = Field(1_000_000.0, gt=0.0)
    """RoPE's base, from this phase on; model.rope_theta is the one before."""
    share: float = Field(0.1, gt=0.0)
    """Its steps over those before."""
    max_steps: int | None = Field(None, ge=1)
    """Its steps, in place of the share."""
    batch_size: int | None = Field(None, ge=1)
    """Rows a step; by default as many tokens as before."""
    texts: Annotated[DataSource | None, Rows("texts")] = None
    """Its own texts, by default those of the job. Texts no longer than the rows before teach
    nothing about longer contexts."""
    yarn_factor: float = Field(1.0, ge=1.0)
    """Above 1: the finished model stretches its positions to so many times sequence_length by YaRN
    (arXiv 2309.00071), which is not trained, and changes short texts a little too."""


class PretrainSettings(Settings):
    """A new model from texts."""

    texts: Annotated[DataSource, Rows("texts")]
    """What it is trained on."""
    heldout: Annotated[DataSource | None, Rows("texts")] = None
    """For the held-out loss; without it a hundredth of the texts is set aside."""
    tokenizer: Annotated[TokenizerSettings | str, Tokenizer()] = TokenizerSettings()
    """Settings of a new one, or the folder or hub name of one to use."""
    model: ModelShape = ModelShape()
    sequence_length: int = Field(512, ge=16)
    """Tokens of a row: it holds whole texts that do not see each other; a longer one is cut."""
    context_extension: ContextExtension | None = None
    """A last phase on longer rows."""
    train: TrainSettings = TrainSettings()

    @model_validator(mode="after")
    def _merges_with_nothing(self) -> "PretrainSettings":
        require_no_reference(self.train)
        return self

    @model_validator(mode="after")
    def _rows_have_positions(self) -> "PretrainSettings":
        if self.sequence_length > self.model.max_positions:
            raise ValueError(
                f"sequence_length {self.sequence_length} is more than model.max_positions"
                f" {self.model.max_positions}; lower it, or raise model.max_positions"
            )
        longer = self.context_extension
        if longer is None:
            return self
        if longer.sequence_length <= self.sequence_length:
            raise ValueError(
                f"context_extension.sequence_length {longer.sequence_length} is not more than"
                f" sequence_length {self.sequence_length}; raise it, or leave the phase out"
            )
        if longer.rope_theta < self.model.rope_theta:
            raise ValueError(
                f"context_extension.rope_theta {longer.rope_theta:g} is less than"
                f" model.rope_theta {self.model.rope_theta:g}; longer contexts need a larger base:"
                " lower model.rope_theta, or raise it"
            )
        return self


class SFTSettings(Settings):
    """Supervised fine-tuning on messages; the loss is on the assistant's tokens alone."""

    policy: ModelPath
    """The base model: folder, hub name or "@stage"."""
    demonstrations: Annotated[DataSource, Rows("conversations")]
    """Dialogues whose answers it learns."""
    train: TrainSettings = TrainSettings()

    @model_validator(mode="after")
    def _merges_with_nothing(self) -> "SFTSettings":
        require_no_reference(self.train)
        return self


class RewardModelSettings(Settings):
    """A scalar head on a policy, trained on pairs."""

    policy: ModelPath
    """The model that gets the head: folder, hub name or "@stage"."""
    pairs: Annotated[DataSource, Rows("pairs")]
    """What it learns to tell apart."""
    heldout: Annotated[DataSource | None, Rows("pairs")] = None
    """Gives heldout_accuracy, heldout_loss, heldout_margin, heldout_pairs."""
    train: TrainSettings = TrainSettings()

    @model_validator(mode="after")
    def _merges_with_nothing(self) -> "RewardModelSettings":
        require_no_reference(self.train)
        return self


class OfflineDPOSettings(Settings):
    """DPO on a fixed preference set."""

    policy: ModelPath
    """As training starts: folder, hub name or "@stage"."""
    reference: OptionalModelPath = None
    """Frozen; by default the policy as it was before any training on preferences, by lineage."""
    base: OptionalModelPath = None
    """For OMO: tau_r = reference - base; by default what the reference was fine-tuned from."""
    pairs: Annotated[DataSource, Rows("pairs")]
    """What it is trained on."""
    heldout: Annotated[DataSource | None, Rows("pairs")] = None
    """Measured after training, as heldout_<metric>."""
    dpo: DPOSettings = DPOSettings()
    train: TrainSettings = TrainSettings()


class OnlineDPOSettings(Settings):
    """DPO on what the policy samples itself; the learner's part of it."""

    policy: ModelPath
    """As the run starts: version 0."""
    reference: OptionalModelPath = None
    """Frozen; by default the policy as it was before any training on preferences, by lineage."""
    base: OptionalModelPath = None
    """For OMO: tau_r = reference - base; by default what the reference was fine-tuned from."""
    episodes: EpisodeSettings = EpisodeSettings()
    dpo: DPOSettings = DPOSettings()
    train: TrainSettings = TrainSettings()
    """`epochs` is passes over each episode's pairs."""
    record: Operational[bool] = False
    """Keep each episode's pairs, exactly as they are trained, in the artifact's rollouts/: job
    replay_dpo trains on them again."""
    queues: Operational[QueueSettings] = QueueSettings()

    @model_validator(mode="after")
    def _keeps_by_episode(self) -> "OnlineDPOSettings":
        require_keeping_by_episode(self.train)
        return self


class ReplayDPOSettings(Settings):
    """DPO on the rollouts that an online run recorded."""

    rollouts: Annotated[str, Rollouts()]
    """The artifact of an online run with `record`, or the rollouts/ in it."""
    policy: ModelPath
    """As the run starts. Left out: that of the recorded run, and with it whatever else of
    reference, base, episodes, dpo, train and seed is not set."""
    reference: OptionalModelPath = None
    """Frozen; by default the policy as it was before any training on preferences, by lineage."""
    base: OptionalModelPath = None
    """For OMO: tau_r = reference - base; by default what the reference was fine-tuned from."""
    episodes: EpisodeSettings = EpisodeSettings()
    """`count` of the recorded ones are trained; what is said of sampling has no meaning here."""
    dpo: DPOSettings = DPOSettings()
    train: TrainSettings = TrainSettings()
    """`epochs` is passes over each episode's pairs."""

    @model_validator(mode="after")
    def _keeps_by_episode(self) -> "ReplayDPOSettings":
        require_keeping_by_episode(self.train)
        return self


REFERENCE = "reference"
"""Folder in Place.folder, and in the artifact: the reference's log-probabilities of the pairs."""


class Place(Settings):
    """Where a training job runs, as the orchestrator decided it."""

    stage: str
    """Named in progress events."""
    seed: int = Field(0, ge=0)
    out: str
    """Folder the model is written to."""
    kept: str | None = None
    """Folder for the models that keep_every asks for; on storage every rank sees."""
    folder: str | None = None
    """What an interrupted job goes on from is kept here: checkpoints in <folder>/checkpoints. On
    storage every rank sees; without it the job begins at its beginning."""
    hold: str | None = None
    """File that holds the job between two steps while it is there; on storage every rank sees."""


class OnlinePlace(Place):
    """As Place, and the run an online learner belongs to."""

    run: str
    redis_url: SecretStr
    """May hold a password: shown nowhere."""
    epoch: int = 0
    """Of the orchestrator: what the learner changes is refused once another took the run over."""
    folder: str
    engine_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """What every version is rounded to, and described as."""
    canary_tokens: list[int]
    """A fixed text; its log-probabilities go out with every version."""
    canary_tolerance: float = Field(5e-4, gt=0.0)
    """Nats."""


def require_keeping_by_episode(train: TrainSettings) -> None:
    """ValueError for models kept by steps in a job that goes by episodes."""
    if train.keep_every:
        raise ValueError(
            "train.keep_every counts the steps of jobs that are not online; set episodes.keep_every"
        )


def require_no_reference(train: TrainSettings) -> None:
    """ValueError for an optimizer that merges with a reference where there is none."""
    if not isinstance(train.optimizer, AdamWSettings) and train.optimizer.alpha > 0:
        raise ValueError(
            f"train.optimizer.kind {train.optimizer.kind} merges with a reference, and this job has"
            " none: set it to adamw, or train.optimizer.alpha to 0"
        )
