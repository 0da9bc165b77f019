"""Settings of the reward: a list of parts, each reported on its own, summed by weight."""

from typing import Annotated, Literal

from pydantic import Field

from services.inputs import Function, ModelPath
from services.settings import Operational, Settings


class ModelReward(Settings):
    """A reward model: Qwen2 with one scalar head, as our reward_model job writes it."""

    kind: Literal["model"] = "model"
    path: ModelPath
    """Folder, hub name, or "@stage" inside a recipe."""
    weight: float = 1.0
    dtype: Literal["float32", "bfloat16"] = "float32"
    max_length: int = Field(2048, ge=16)
    """Longest prompt and answer together, in tokens; longer is cut from the left."""


class CheckerReward(Settings):
    """1 when the answer is what the prompt's metadata asks for, else 0.

    metadata "answer": equal after whitespace is normalised; metadata "pattern": the whole
    answer matches this regular expression.
    """

    kind: Literal["checker"] = "checker"
    weight: float = 1.0


class LengthReward(Settings):
    """-1 a `scale` tokens above `target` tokens, in proportion; 0 up to the target."""

    kind: Literal["length"] = "length"
    weight: float = 1.0
    target: int = Field(256, ge=1)
    scale: float = Field(256.0, gt=0.0)


class MissingEosReward(Settings):
    """-1 for an answer that was cut before its end of sequence, else 0."""

    kind: Literal["missing_eos"] = "missing_eos"
    weight: float = 1.0


class FunctionReward(Settings):
    """A Python function of yours: f(prompt, answer, metadata) -> float, all strings."""

    kind: Literal["function"] = "function"
    path: Annotated[str, Function()] = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    """Import path, "package.module:function"."""
    weight: float = 1.0


RewardPart = Annotated[
    ModelReward | CheckerReward | LengthReward | MissingEosReward | FunctionReward,
    Field(discriminator="kind"),
]


class RewardSettings(Settings):
    """What answers are worth, and the service that says so."""

    parts: list[RewardPart] = Field(min_length=1)
    replicas: Operational[int] = Field(1, ge=1)
    """Serve replicas."""
    max_batch_groups: Operational[int] = Field(16, ge=1)
    """Groups handed to a replica at once at most; each is a forward pass of its own."""
    batch_wait_s: Operational[float] = Field(0.01, ge=0.0)
    """How long a batch waits to fill, in seconds."""
    timeout_s: Operational[float] = Field(60.0, gt=0.0)
    """Deadline of one Score call."""
    attempts: Operational[int] = Field(4, ge=1)
    """Tries of one Score call while the service is UNAVAILABLE."""
    num_cpus: Operational[float] = Field(1.0, ge=0.0)
    num_gpus: Operational[float] = Field(0.0, ge=0.0)
    threads: Operational[int] = Field(0, ge=0)
    """Torch threads of one replica; 0: all cores."""
    host: Operational[str] = "127.0.0.1"
    """Where the gRPC gateway listens."""
    port: Operational[int] = Field(0, ge=0, le=65535)
    """0 takes a free one."""
