"""The memory of one vLLM engine, from its settings and the model's size. Figures: docs/memory.md"""

from services.memory_plan import GIB, WIDTHS, Part, ProcessMemory
from services.model_size import ModelSize
from services.rollout.settings import EngineSettings

_BASE = int(0.62 * GIB)
"""vLLM, torch and transformers imported and set up: measured with a model of 4M parameters."""
_TOKENIZER_ENTRY = 1_900
"""Bytes an entry of the vocabulary costs in an engine's tokenizers, with its merge."""
_GPU_WORKSPACE = int(1.5 * GIB)
"""Of a GPU beside weights and KV cache: context, graphs and the widest step."""


def engine_memory(size: ModelSize, settings: EngineSettings) -> ProcessMemory:
    """One engine. On a GPU it fills the share it is given whatever the model."""
    width = WIDTHS[settings.dtype]
    narrower = "engine.dtype=bfloat16" if width == 4 else ""
    weights = width * size.parameters
    base = Part("process", _BASE + _TOKENIZER_ENTRY * size.vocab_size)
    if settings.num_gpus:
        spread = settings.tensor_parallel_size
        parts = (
            base,
            # Read in the order of the files, a shard at a time.
            Part("weights while they load", min(weights, 2 * GIB)),
            Part("weights", weights // spread, narrower, on_gpu=True),
            Part("workspace", _GPU_WORKSPACE, on_gpu=True),
            Part("KV cache", _one_sequence(size, settings) // spread, on_gpu=True),
        )
        return ProcessMemory("engine", parts, settings.workers, settings.num_gpus / spread)
    parts = (
        Part("weights", weights, narrower),
        # The CPU's kernels pack layers in place of their weights, and a copy of the head beside it.
        Part("packed head", width * size.embedding),
        Part("KV cache", int(settings.kv_cache_gib * GIB), "engine.kv_cache_gib"),
        # The embedding in checkpoint form, and packed twice.
        Part("a load's working room", 3 * width * size.embedding, passing=True),
        base,
    )
    return ProcessMemory("engine", parts, settings.workers)


def _one_sequence(size: ModelSize, settings: EngineSettings) -> int:
    return size.key_values * WIDTHS[settings.dtype] * settings.max_model_len
