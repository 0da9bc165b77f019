"""The policy as the engines get it: its weights rounded to their dtype, and a forward of those."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from services.learner.train.checkpoint import model_tensors
from services.weights.manifest import Array
from services.weights.snapshot import to_array


def engine_tensors(model: Any, dtype: str) -> dict[str, Array]:
    """CPU copies of the parameters in `dtype`, by name; bfloat16 as its bits in uint16."""
    wanted = getattr(torch, dtype)
    return {
        name: to_array(value.to("cpu", wanted, copy=True))
        for name, value in model_tensors(model).items()
    }


@contextmanager
def rounded(model: Any, dtype: str) -> Iterator[None]:
    """Within the block the float32 weights are those rounded to `dtype`; afterwards as before.

    For float32 nothing is done. Otherwise the weights wait on the CPU meanwhile: 4 bytes a
    parameter there, and on the model's own device no more than one parameter.
    """
    if dtype == "float32":
        yield
        return
    named = model_tensors(model)
    held = {name: value.to("cpu", copy=True) for name, value in named.items()}
    try:
        for value in named.values():
            value.copy_(value.to(getattr(torch, dtype)))
        yield
    finally:
        for name, value in named.items():
            value.copy_(held[name])
