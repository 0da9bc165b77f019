"""The reference vector tau_r = reference - base, from two model folders, as it is needed."""

import threading
from collections.abc import Iterator, Mapping
from typing import Protocol

import torch
from torch import Tensor

from services.errors import LineageError
from services.learner.model.stored import StoredTensors


class Tau(Protocol):
    """What the optimizer asks a reference vector for."""

    def flat(self, name: str, start: int, stop: int) -> Tensor:
        """Values start to stop of it laid out flat, float32; only good until the next call."""
        ...


class _Space(threading.local):
    """Each thread's two buffers, as long as the longest range so far."""

    def __init__(self) -> None:
        self._both = torch.empty(2, 0)

    def of(self, count: int) -> tuple[Tensor, Tensor]:
        if self._both.shape[1] < count:
            self._both = torch.empty(2, count)
        return self._both[0, :count], self._both[1, :count]


class ReferenceVector(Mapping[str, Tensor]):
    """tau_r by parameter name, never held: each use reads both folders' files where they lie.

    The difference is taken in float32 and then rounded to `dtype`. Names and shapes are checked
    when it is made, without reading a weight: LineageError names the first tensor that differs.
    """

    def __init__(
        self, reference: StoredTensors, base: StoredTensors, dtype: torch.dtype = torch.float32
    ) -> None:
        _check_same(reference, base)
        self._reference, self._base, self._dtype = reference, base, dtype
        self._space = _Space()

    def __getitem__(self, name: str) -> Tensor:
        difference = self._reference[name].float() - self._base[name].float()
        return difference.to(self._dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self._reference)

    def __len__(self) -> int:
        return len(self._reference)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of one parameter's part, from the files' headers."""
        return self._reference.shape(name)

    def flat(self, name: str, start: int, stop: int) -> Tensor:
        """As `Tau.flat`: good until the same thread's next call."""
        ours, theirs = self._space.of(stop - start)
        ours.copy_(self._reference.flat(name, start, stop))
        ours.sub_(theirs.copy_(self._base.flat(name, start, stop)))
        if self._dtype != torch.float32:
            ours.copy_(ours.to(self._dtype))
        return ours


class _Held:
    """Any other mapping of tensors, which are in memory."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors

    def flat(self, name: str, start: int, stop: int) -> Tensor:
        """As `Tau.flat`."""
        return self._tensors[name].detach().reshape(-1)[start:stop].float()


def tau_of(tensors: Mapping[str, Tensor]) -> Tau:
    """A reference vector as the optimizer reads it, slice by slice."""
    return tensors if isinstance(tensors, ReferenceVector) else _Held(tensors)


def require_covered(parameters: Mapping[str, Tensor], tau: Mapping[str, Tensor]) -> None:
    """LineageError naming the first parameter that `tau` lacks, or has in another shape."""
    for name, parameter in parameters.items():
        if name not in tau:
            raise LineageError(
                f"tau_r = reference - base: {name} of the policy is missing in the reference; "
                "the policy must be of the reference's shape"
            )
        shape = tau.shape(name) if isinstance(tau, ReferenceVector) else tuple(tau[name].shape)
        if shape != tuple(parameter.shape):
            raise LineageError(
                f"tau_r = reference - base: {name} is {shape} in the reference and "
                f"{tuple(parameter.shape)} in the policy; they must be of one shape"
            )


def _check_same(reference: StoredTensors, base: StoredTensors) -> None:
    for name in [*reference, *(name for name in base if name not in reference)]:
        if name not in reference or name not in base:
            where = "base" if name not in base else "reference"
            raise LineageError(
                f"tau_r = reference - base: {name} is missing in the {where}; "
                "base must be the model the reference was trained from"
            )
        if reference.shape(name) != base.shape(name):
            raise LineageError(
                f"tau_r = reference - base: {name} is {reference.shape(name)} in the reference "
                f"and {base.shape(name)} in the base; they must be of one shape"
            )
