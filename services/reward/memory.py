"""The memory of one reward replica: its models, and what one of their passes takes."""

from collections.abc import Sequence

from services.memory_plan import GIB, TOKENIZER_ENTRY, WIDTHS, Part, ProcessMemory
from services.model_size import ModelSize
from services.reward.settings import ModelReward, RewardSettings

_BASE = int(0.12 * GIB)
"""Ray Serve and gRPC imported."""
_TORCH = int(0.35 * GIB)
"""torch and transformers, where a part is a model."""
_PASS_TOKENS = 2048
"""Of one group, roughly: what a pass works on at once."""


def reward_memory(
    settings: RewardSettings, models: Sequence[tuple[ModelReward, ModelSize]]
) -> ProcessMemory:
    """One of `settings.replicas`; `models` are its parts that are models."""
    on_gpu = settings.num_gpus > 0
    parts = [Part("process", _BASE)]
    for part, size in models:
        width = WIDTHS[part.dtype]
        lower = "reward.parts.dtype=bfloat16" if width == 4 else ""
        passes = _PASS_TOKENS * width * (6 * size.hidden_size + 3 * size.intermediate_size)
        parts += [
            Part("reward model", width * size.parameters, lower, on_gpu),
            Part("its passes", passes, on_gpu=on_gpu),
            Part("torch and tokenizer", _TORCH + TOKENIZER_ENTRY * size.vocab_size),
        ]
    return ProcessMemory(
        "reward", tuple(parts), settings.replicas, settings.num_gpus if on_gpu else 0.0
    )
