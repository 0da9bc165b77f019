"""A weight version as it goes out: the policy in the engines' dtype, its changes, its canary."""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from services.learner.model.frozen import FrozenPolicy
from services.learner.model.packing import PrefixGroup
from services.learner.model.policy import Policy
from services.weights.manifest import Array, Tensors
from services.weights.snapshot import to_array


def engine_tensors(policy: Policy, dtype: str) -> Iterator[tuple[str, Array]]:
    """The parameters in `dtype`, one at a time; bfloat16 as its bits in uint16.

    What the policy holds in this dtype already is not copied: to be read before the next step.
    """
    for name, value in policy.in_dtype(getattr(torch, dtype)):
        yield name, to_array(value)


def canary_logprobs(
    tensors: Tensors, config: Any, token_ids: Sequence[int], device: torch.device
) -> list[float]:
    """Log-probabilities in nats of token_ids[1:], by a float32 forward of the tensors."""
    frozen = FrozenPolicy(
        {name: _tensor(array) for name, array in tensors.items()}, config, "float32", device
    )
    found: list[float] = frozen.logprobs([PrefixGroup((), (token_ids,))]).values.tolist()
    return found


def _tensor(array: Array) -> Tensor:
    """The array's own memory, as `to_array` has made it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of arrays that are not to be written to
        if array.dtype == np.uint16:
            return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(array)
