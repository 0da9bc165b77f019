"""One arm of bench/omo_step.py: steps of one optimizer over random gradients, timed.

Runs against the services of another revision too, so it uses what both have.
"""

import argparse
import importlib
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from services.learner.optim.omo import OnlineMerging
from services.learner.settings import OnDARESettings

_PROBE_VALUES = 1 << 27


def main() -> None:
    """Step, and print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("arm", choices=("before", "float32", "int8", "adamw"))
    parser.add_argument("policy", type=Path)
    parser.add_argument("base", type=Path)
    parser.add_argument("--reserve", type=float, default=0.1)
    parser.add_argument("--steps", type=int, default=3)
    options = parser.parse_args()
    bytes_per_s = _memory_speed()
    # From here on the most memory is counted anew: 5 is what resets it (man 5 proc).
    Path("/proc/self/clear_refs").write_text("5")
    started = _status("VmRSS")
    named = {name: nn.Parameter(value.float()) for name, value in _tensors(options.policy).items()}
    optimizer = _optimizer(options.arm, named, options)
    seconds = []
    for _ in range(1 + options.steps):
        for parameter in named.values():
            parameter.grad = torch.randn_like(parameter).mul_(1e-3)
        began = time.perf_counter()
        optimizer.step()
        seconds.append(time.perf_counter() - began)
    figures = {
        "values": sum(parameter.numel() for parameter in named.values()),
        "seconds": median(seconds[1:]),
        "bytes_per_s": bytes_per_s,
        "held_bytes": _status("VmRSS") - started,
        "peak_bytes": _status("VmHWM") - started,
    }
    print(json.dumps(figures))


def _optimizer(arm: str, named: dict[str, nn.Parameter], options: Any) -> torch.optim.Optimizer:
    if arm == "adamw":
        return torch.optim.AdamW(named.values(), lr=1e-5, fused=True)
    if arm == "before":
        rule = OnDARESettings(reserve=options.reserve, tau_dtype="bfloat16")
        base = _tensors(options.base)
        tau: Any = {name: value - base[name] for name, value in _tensors(options.policy).items()}
    else:
        rule = OnDARESettings(reserve=options.reserve, moments=arm)
        stored = importlib.import_module("services.learner.model.stored").StoredTensors
        of_files = importlib.import_module("services.learner.optim.tau").ReferenceVector
        tau = of_files(stored(options.policy), stored(options.base))
    return OnlineMerging(list(named.items()), rule, tau=tau, seed=1)


def _tensors(folder: Path) -> dict[str, Tensor]:
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def _memory_speed() -> float:
    """Bytes a second that a multiplication in place reads and writes: the best of five."""
    values = torch.ones(_PROBE_VALUES)
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        values.mul_(1.0)
        best = min(best, time.perf_counter() - began)
    return 2 * values.nbytes / best


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"/proc/self/status names no {name}; memory is measured on Linux")


if __name__ == "__main__":
    main()
