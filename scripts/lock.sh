#!/usr/bin/env bash
# Resolve pyproject.toml into requirements/cpu.lock and requirements/gpu.lock (versions and hashes,
# no addresses).
# In cpu.lock torch and what belongs to its build (CUDA, triton) stay out: scripts/setup.sh
# installs torch first, with its own dependencies, so that the lock fits a CPU and a CUDA torch
# alike. gpu.lock is whole: vllm's own build fits one build of torch, the index's for CUDA.
set -euo pipefail
cd "$(dirname "$0")/.."
skip=(torch triton cuda-bindings cuda-pathfinder cuda-toolkit)
skip+=(nvidia-cublas nvidia-cuda-cupti nvidia-cuda-nvrtc nvidia-cuda-runtime nvidia-cudnn-cu13)
skip+=(nvidia-cufft nvidia-cufile nvidia-curand nvidia-cusolver nvidia-cusparse)
skip+=(nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvjitlink nvidia-nvshmem-cu13 nvidia-nvtx)
export UV_FIND_LINKS="${UV_FIND_LINKS:-${PIP_FIND_LINKS:-}}"
.venv/bin/uv pip compile pyproject.toml --quiet \
    --extra cpu --extra dev --extra build \
    --universal --generate-hashes --no-emit-index-url --no-emit-find-links \
    --custom-compile-command "make lock" \
    "${skip[@]/#/--no-emit-package=}" \
    --output-file requirements/cpu.lock
# One Python and one platform: what vllm needs of NVIDIA has wheels for few others.
.venv/bin/uv pip compile pyproject.toml --quiet \
    --extra gpu --extra dev --extra build \
    --python-version 3.12 --python-platform x86_64-manylinux_2_34 \
    --generate-hashes --no-emit-index-url --no-emit-find-links \
    --custom-compile-command "make lock" \
    --output-file requirements/gpu.lock
