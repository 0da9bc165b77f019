"""Whether a model fits a CPU engine, by its config.json alone: known before anything starts."""

import json
from pathlib import Path

from services.errors import ArtifactError, ResourceError
from services.memory_plan import GIB, WIDTHS
from services.rollout.settings import EngineSettings

CPU_HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256)
"""The CPU's attention kernels are built for these alone, and say so at the first token."""


def check_fit(model: str, settings: EngineSettings) -> None:
    """A model in a folder against the settings; a hub name and a GPU are left to the engine.

    Raises ArtifactError for a head size without a kernel, ResourceError when the KV cache does
    not hold one sequence of `max_model_len`.
    """
    path = Path(model) / "config.json"
    if settings.num_gpus > 0 or not path.is_file():
        return
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        heads = int(config["num_attention_heads"])
        size = int(config.get("head_dim") or config["hidden_size"] // heads)
        kv_heads = int(config.get("num_key_value_heads") or heads)
        layers = int(config["num_hidden_layers"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return  # of another make: the engine will say
    check_head_size(model, size)
    # Keys and values.
    needed = 2 * layers * kv_heads * size * WIDTHS[settings.dtype] * settings.max_model_len / GIB
    if needed > settings.kv_cache_gib:
        raise ResourceError(
            f"engine.kv_cache_gib={settings.kv_cache_gib:g} does not hold one sequence of "
            f"engine.max_model_len={settings.max_model_len} tokens (it takes {needed:.2g} GiB); "
            "raise the first or lower the second"
        )


def check_head_size(model: str, size: int) -> None:
    """ArtifactError unless the CPU build can compute attention of this head size."""
    if size not in CPU_HEAD_SIZES:
        raise ArtifactError(
            f"{model}: vLLM's CPU attention has no kernel for heads of {size} values; use one of"
            f" {', '.join(map(str, CPU_HEAD_SIZES))} (hidden_size over heads)"
        )
