"""Settings of the reward: a list of parts, each reported on its own, summed by weight."""

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from services.inputs import Function, RewardModelPath
from services.settings import Operational, Settings

TAKEN_NAMES = ("mean", "max", "min")
"""Those of the metrics reward_mean and so on, of the whole sum."""


class _Part(Settings):
    kind: str
    weight: float = 1.0
    """Of its score in the sum."""
    name: Operational[str] = ""
    """Of the metric reward_<name> and in the report; by default a function's name, else the
    kind."""

    @field_validator("name")
    @classmethod
    def _is_a_key(cls, name: str) -> str:
        if name and not re.fullmatch(r"[A-Za-z_][\w.-]*", name):
            raise ValueError(f"'{name}' is no name of a metric; use letters, digits, _, - and .")
        return name


class ModelReward(_Part):
    """A reward model: Qwen2 with one scalar head, as our reward_model job writes it."""

    kind: Literal["model"] = "model"
    path: RewardModelPath
    """Folder, hub name, or "@stage" inside a recipe."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of its weights and its forward pass."""
    max_length: int = Field(2048, ge=16)
    """Longest prompt and answer together, in tokens; longer is cut from the left."""


class CheckerReward(_Part):
    """1 when the answer is what the prompt's metadata asks for, else 0.

    metadata "answer": equal after whitespace is normalised, or equal to one of them where it is a
    list; metadata "pattern": the whole answer matches this regular expression.
    """

    kind: Literal["checker"] = "checker"


class LengthReward(_Part):
    """-1 a `scale` tokens above `target` tokens, in proportion; 0 up to the target."""

    kind: Literal["length"] = "length"
    target: int = Field(256, ge=1)
    """Tokens that cost nothing."""
    scale: float = Field(256.0, gt=0.0)
    """Tokens above the target that cost 1."""


class MissingEosReward(_Part):
    """-1 for an answer that was cut before its end of sequence, else 0."""

    kind: Literal["missing_eos"] = "missing_eos"


class FunctionReward(_Part):
    """A Python function of yours: f(prompt, answer, metadata) -> float.

    `prompt` is the text under the chat template, `answer` the text without special tokens,
    `metadata` a dict of strings. A parameter `messages`, if it has one, is given the prompt's
    messages: a list of {"role", "content"}.
    """

    kind: Literal["function"] = "function"
    path: Annotated[str, Function()] = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    """Import path, "package.module:function"."""


RewardPart = Annotated[
    ModelReward | CheckerReward | LengthReward | MissingEosReward | FunctionReward,
    Field(discriminator="kind"),
]


class RewardSettings(Settings):
    """What answers are worth, and the service that says so."""

    parts: list[RewardPart] = Field(min_length=1)
    """What is summed, each by its weight."""
    replicas: Operational[int] = Field(1, ge=1)
    """Serve replicas."""
    max_batch_groups: Operational[int] = Field(16, ge=1)
    """Groups handed to a replica at once at most; each is a forward pass of its own."""
    batch_wait_s: Operational[float] = Field(0.01, ge=0.0)
    """How long a batch waits to fill, in seconds."""
    timeout_s: Operational[float] = Field(60.0, gt=0.0)
    """Deadline of one Score call."""
    outage_s: Operational[float] = Field(300.0, ge=0.0)
    """How long a Score call is made again and again while the service is UNAVAILABLE: its gateway
    or a replica is being started again, or all replicas are busy."""
    num_cpus: Operational[float] = Field(1.0, ge=0.0)
    """Ray CPUs one replica reserves."""
    num_gpus: Operational[float] = Field(0.0, ge=0.0)
    """Ray GPUs one replica reserves."""
    threads: Operational[int] = Field(0, ge=0)
    """Torch threads of one replica; 0: all cores."""
    host: Operational[str] = "127.0.0.1"
    """Where the gRPC gateway listens."""
    port: Operational[int] = Field(0, ge=0, le=65535)
    """0 takes a free one."""
    tokens: Operational[str | None] = None
    """As admin.tokens. The run itself always has one of its own; others are asked for theirs where
    there are some, and wherever `host` is no loopback address."""

    @model_validator(mode="after")
    def _names_are_their_own(self) -> "RewardSettings":
        names = [part.name for part in self.parts if part.name]
        for at, name in enumerate(names):
            if name in TAKEN_NAMES:
                raise ValueError(f"parts: a part named '{name}': reward_{name} is of the whole sum")
            if name in names[:at]:
                raise ValueError(f"parts: two parts are named '{name}'; give each its own name")
        return self
