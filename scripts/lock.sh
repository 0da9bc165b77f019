#!/usr/bin/env bash
# Resolve pyproject.toml into requirements/cpu.lock (versions and hashes, no addresses).
# torch and what belongs to its build (CUDA, triton) stay out: scripts/setup.sh installs
# torch first, with its own dependencies, so that the lock fits a CPU and a CUDA torch alike.
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
