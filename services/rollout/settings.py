"""Settings of sampling: what is asked of a policy, and the engine that answers."""

from typing import Literal

from pydantic import Field, model_validator

from services.settings import Operational, Settings


class SamplingSettings(Settings):
    """How answers are drawn."""

    n: int = Field(8, ge=1, le=256)
    """Samples a prompt."""
    temperature: float = Field(1.0, ge=0.0)
    """0 is greedy."""
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    """Drawn are the likeliest tokens that together have this probability; 1 switches it off."""
    top_k: int = Field(0, ge=0)
    """0 switches it off."""
    max_tokens: int = Field(256, ge=1)
    """Longest answer, in tokens."""


class EngineSettings(Settings):
    """One vLLM engine. The CPU build is used where there is no GPU."""

    workers: Operational[int] = Field(1, ge=1)
    """Engines, each in a Ray actor of its own; they share the prompt stream."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of weights, activations and KV cache."""
    max_model_len: int = Field(2048, ge=16)
    """Longest prompt and answer together, in tokens."""
    max_num_seqs: Operational[int] = Field(128, ge=1)
    """Sequences that run at once in one engine."""
    kv_cache_gib: Operational[float] = Field(1.0, gt=0.0)
    """Memory for the KV cache of one CPU engine, in GiB."""
    gpu_memory_utilization: Operational[float] = Field(0.85, gt=0.0, le=1.0)
    """Share of a GPU's memory for one engine, weights and KV cache together."""
    tensor_parallel_size: Operational[int] = Field(1, ge=1)
    """GPUs one engine spans."""
    enforce_eager: Operational[bool] = False
    """Skip graph capture (a CPU engine is always eager)."""
    threads: Operational[int] = Field(0, ge=0)
    """OpenMP threads of one CPU engine; 0: the machine's cores over the engines."""
    num_cpus: Operational[float] = Field(1.0, ge=0.0)
    """Ray CPUs one worker reserves."""
    num_gpus: Operational[float] = Field(0.0, ge=0.0)
    """Ray GPUs one worker reserves; 0 runs the CPU build."""
    start_timeout_s: Operational[float] = Field(300.0, gt=0.0)
    """How long an engine may take to come up."""

    @model_validator(mode="after")
    def _reserves_what_it_spans(self) -> "EngineSettings":
        if 0 < self.num_gpus < self.tensor_parallel_size > 1:
            raise ValueError(
                f"engine.tensor_parallel_size is {self.tensor_parallel_size} and engine.num_gpus"
                f" {self.num_gpus:g}: an engine sees the GPUs that it reserves; set num_gpus to"
                f" {self.tensor_parallel_size}"
            )
        return self
