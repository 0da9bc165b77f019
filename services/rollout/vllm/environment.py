"""The process environment a vLLM engine needs; it must be set before vLLM is imported."""

import os
from pathlib import Path

from services.rollout.settings import EngineSettings

QUIET = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def engine_environment(settings: EngineSettings, model: str | Path) -> dict[str, str]:
    """Environment variables for one engine.

    One engine, one process, unless it spans several GPUs. On a CPU its sampler would compile a
    kernel at the first token (18 s for the smallest model, and a C++ compiler is needed): that
    is switched off. Threads are not bound to cores, so that engines on one machine do not all
    take the first ones.
    """
    variables = dict(QUIET)
    if settings.tensor_parallel_size == 1:
        variables["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    if Path(model).is_dir():
        variables["HF_HUB_OFFLINE"] = "1"
    if settings.num_gpus == 0:
        variables["TORCHDYNAMO_DISABLE"] = "1"
        variables["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
        variables["OMP_NUM_THREADS"] = str(engine_threads(settings))
    return variables


def engine_threads(settings: EngineSettings) -> int:
    """OpenMP threads of one CPU engine."""
    return settings.threads or max(1, (os.cpu_count() or 1) // settings.workers)
