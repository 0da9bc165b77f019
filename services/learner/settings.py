"""Settings of training, shared by every job that trains."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from services.settings import Operational, Settings


class AdamSettings(Settings):
    """Adam's moments and step, shared by every optimizer."""

    lr: float = Field(1e-5, gt=0.0)
    """Learning rate at the peak of its schedule."""
    beta1: float = Field(0.9, ge=0.0, lt=1.0)
    """Decay of the gradients' running mean."""
    beta2: float = Field(0.95, ge=0.0, lt=1.0)
    """Decay of the running mean of their squares."""
    eps: float = Field(1e-8, gt=0.0)
    """Added to the root of the second moment."""
    weight_decay: float = Field(0.0, ge=0.0)
    """Decoupled; norms and biases do not decay."""
    moments: Literal["float32", "int8"] = "float32"
    """Of Adam between steps: int8 keeps one byte each, 2 instead of 8 bytes a parameter."""


class AdamWSettings(AdamSettings):
    """Adam with decoupled weight decay (arXiv 1711.05101)."""

    kind: Literal["adamw"] = "adamw"


class _Merging(AdamSettings):
    alpha: float = Field(1e-6, ge=0.0, lt=1.0)
    """a: the weight of the reference vector tau_r."""
    merge_every: int = Field(1, ge=1)
    """K of Step-K (algorithm 2): merge on every K-th step."""
    mode: Literal["paper", "official"] = "paper"
    """"official" reproduces the authors' script where it differs (docs/algorithms.md)."""
    tau_dtype: Literal["float32", "bfloat16"] = "float32"
    """What tau_r is rounded to. On a CPU it is read from the two models' files at each step and
    costs no memory; on a GPU it is held, in 2 or 4 bytes a parameter."""


class OnDARESettings(_Merging):
    """Online Merging Optimizer, OnDARE (arXiv 2405.17931, Eq. 3 and 4)."""

    kind: Literal["ondare"] = "ondare"
    reserve: float = Field(0.1, gt=0.0, le=1.0)
    """p: the probability that a value is kept."""
    rescale: bool = False
    """Divide survivors by p, so that the expected step is Adam's; the paper's Eq. 4 does not."""


class OnTIESSettings(_Merging):
    """Online Merging Optimizer, OnTIES (arXiv 2405.17931, Eq. 5 to 7)."""

    kind: Literal["onties"] = "onties"
    reserve: float = Field(0.1, gt=0.0, le=1.0)
    """p: the fraction kept, by magnitude, in each tensor."""
    rescale: bool = False
    """Divide what is kept by p (not in the paper)."""


OptimizerSettings = Annotated[
    AdamWSettings | OnDARESettings | OnTIESSettings, Field(discriminator="kind")
]


class ScheduleSettings(Settings):
    """Learning rate over the steps."""

    kind: Literal["constant", "linear", "cosine"] = "cosine"
    """What follows the warm-up."""
    warmup_steps: int = Field(0, ge=0)
    """Steps in which it rises to its peak."""
    warmup_ratio: float = Field(0.0, ge=0.0, lt=1.0)
    """Share of all steps, in place of warmup_steps."""
    min_ratio: float = Field(0.0, ge=0.0, le=1.0)
    """Last learning rate over the peak."""

    @model_validator(mode="after")
    def _one_warmup(self) -> "ScheduleSettings":
        if self.warmup_steps and self.warmup_ratio:
            raise ValueError("warmup_steps and warmup_ratio are both set; set one of them")
        return self


class TrainSettings(Settings):
    """One training phase, whatever its loss."""

    optimizer: OptimizerSettings = AdamWSettings()
    """How a gradient becomes a step."""
    schedule: ScheduleSettings = ScheduleSettings()
    batch_size: int = Field(64, ge=1)
    """Examples (rows of texts, dialogues or pairs) a step at most, over all workers."""
    micro_batch_tokens: Operational[int] = Field(0, ge=0)
    """Tokens one worker puts through the model at once; 0: so many that their activations take
    about 2 GiB on a CPU, 8 GiB on a GPU. An example above it goes alone."""
    epochs: float = Field(1.0, gt=0.0)
    """Passes over the data; ignored when max_steps is set."""
    max_steps: int | None = Field(None, ge=1)
    """Steps in all, in place of epochs."""
    keep_every: Operational[int] = Field(0, ge=0)
    """Keep the model of every so many steps as a model folder, checkpoints/step-<number> of the
    artifact; 0: the last one alone. An online run keeps by episodes.keep_every."""
    checkpoint_minutes: Operational[float] = Field(1.0, ge=0.0)
    """Minutes between the checkpoints that an interrupted offline job goes on from. Writing them
    takes a twentieth of the time at most: where one takes long they are rarer. 0: every step. An
    online run writes one an episode."""
    stop_s: Operational[float] = Field(60.0, ge=0.0)
    """Seconds that Ctrl-C and SIGTERM wait for the step at work and a checkpoint of it; an online
    run has one of its last episode."""
    max_length: int = Field(2048, ge=16)
    """Longest example in tokens; what is longer is cut, or for pairs dropped and counted."""
    clip_norm: float = Field(1.0, gt=0.0)
    """Gradient norm limit."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the forward and backward pass; weights and moments stay float32."""
    gradient_checkpointing: Operational[bool] = False
    """Keep a layer's input alone and compute the rest anew in the backward pass: less memory, more
    time."""
    workers: Operational[int] = Field(1, ge=1)
    """Ray Train workers (data parallel)."""
    num_cpus: Operational[float] = Field(1.0, ge=0.0)
    """Ray CPUs one worker reserves."""
    num_gpus: Operational[float] = Field(0.0, ge=0.0)
    """GPUs a worker: 0 trains on the CPU over gloo."""
    threads: Operational[int] = Field(0, ge=0)
    """Torch threads of one worker; 0: the machine's cores over the workers."""


class DPOSettings(Settings):
    """Direct Preference Optimization (arXiv 2305.18290, Eq. 7)."""

    kind: Literal["sigmoid"] = "sigmoid"
    """The loss: minus the log-sigmoid of the margin."""
    beta: float = Field(0.1, gt=0.0)
    """Strength of the pull to the reference."""
    label_smoothing: float = Field(0.0, ge=0.0, lt=0.5)
    """Conservative DPO: assumed share of flipped labels."""
