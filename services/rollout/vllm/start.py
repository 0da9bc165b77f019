"""Bring up one vLLM engine, quietly, and say in one line why it did not come up."""

import os
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from services.errors import PairloopError, ResourceError, WorkerError, one_line
from services.hub import find_model
from services.imports import heavy_imports
from services.rollout.settings import EngineSettings
from services.rollout.vllm.environment import engine_environment, engine_threads
from services.rollout.vllm.fit import check_fit
from services.rollout.vllm.plugin import BACKEND, register

if TYPE_CHECKING:
    from vllm.v1.engine.llm_engine import LLMEngine

_GIB = 2**30
_LEAST_BATCHED_TOKENS = 2048


def start(model: str, settings: EngineSettings, seed: int) -> "LLMEngine":
    """The engine, in this process. Raises ResourceError, ArtifactError or WorkerError."""
    find_model(model)
    check_fit(model, settings)
    os.environ.update(engine_environment(settings, model))
    # It is an older setting in whole GiB, and would win over ours.
    os.environ.pop("VLLM_CPU_KVCACHE_SPACE", None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        with heavy_imports():
            import torch

            if settings.num_gpus == 0:
                torch.set_num_threads(engine_threads(settings))
            import vllm.v1.engine.llm_engine  # noqa: F401 - all that is used below, at once
        try:
            return _build(model, settings, seed)
        except (ValueError, RuntimeError, OSError, MemoryError) as error:
            raise explain(error, model, settings) from error


def explain(error: BaseException, model: str, settings: EngineSettings) -> PairloopError:
    """What stopped the engine, and which key to change."""
    text = " ".join(str(error).split())
    if settings.num_gpus > 0:
        if re.search(r"KV cache|out of memory|free memory|No available memory", text, re.I):
            return ResourceError(
                f"{model}: weights and KV cache do not fit into engine.gpu_memory_utilization="
                f"{settings.gpu_memory_utilization:g} of the GPU at engine.max_model_len="
                f"{settings.max_model_len}; raise the first, lower the second, or free the GPU"
            )
    elif re.search(r"KV cache is needed|No available memory for the cache blocks", text):
        return ResourceError(
            f"engine.kv_cache_gib={settings.kv_cache_gib:g} does not hold one sequence of "
            f"engine.max_model_len={settings.max_model_len} tokens{_needed(text)}; raise the "
            "first or lower the second"
        )
    elif isinstance(error, MemoryError) or re.search(
        r"Available memory|can't allocate memory", text, re.I
    ):
        return ResourceError(
            f"{model}: not enough memory for its weights and engine.kv_cache_gib="
            f"{settings.kv_cache_gib:g} GiB of KV cache; lower it, or free memory"
        )
    return WorkerError(f"{model}: the engine did not start: {one_line(error)}")


def _needed(text: str) -> str:
    found = re.search(r"\(([\d.]+) GiB KV cache is needed", text)
    return f" (it takes {found[1]} GiB)" if found and float(found[1]) > 0 else ""


def _build(model: str, settings: EngineSettings, seed: int) -> "LLMEngine":
    from vllm.config.weight_transfer import WeightTransferConfig
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine

    register()
    on_cpu = settings.num_gpus == 0
    arguments = EngineArgs(
        model=model,
        dtype=settings.dtype,
        seed=seed,
        max_model_len=settings.max_model_len,
        max_num_seqs=settings.max_num_seqs,
        kv_cache_memory_bytes=int(settings.kv_cache_gib * _GIB) if on_cpu else None,
        gpu_memory_utilization=settings.gpu_memory_utilization,
        max_num_batched_tokens=_batched_tokens(settings) if on_cpu else None,
        enable_chunked_prefill=False if on_cpu else None,
        tensor_parallel_size=settings.tensor_parallel_size,
        enforce_eager=on_cpu or settings.enforce_eager,
        weight_transfer_config=WeightTransferConfig(backend=BACKEND),
        logprobs_mode="raw_logprobs",
        disable_log_stats=True,
        use_tqdm_on_load=False,
    )
    engine = LLMEngine.from_engine_args(arguments)
    engine.collective_rpc("init_weight_transfer_engine", kwargs={"init_info": {}})
    return engine


def _batched_tokens(settings: EngineSettings) -> int:
    """Most tokens of one step of a CPU engine; no prompt is prefilled in parts there.

    vLLM takes back the random number of a half-read prompt by its generator's offset, and a CPU
    generator has none ("CPU Generator does not use offset"): the engine would die under load.
    """
    return max(_LEAST_BATCHED_TOKENS, settings.max_model_len, settings.max_num_seqs)


def local_folder(model: str) -> Path:
    """Where the model's files lie: the folder itself, or the hub's cache once vLLM filled it."""
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(model, local_files_only=True))
