"""How close training comes to what the machine can multiply.

What a pass must compute is counted from the model's config; what the machine multiplies is measured
with the same products alone, a fraction of a second, once a process. The two give the fraction of
the limit reached (on a GPU known as MFU, there against the data sheet's rate: arXiv 2204.02311, B).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch

from services.model_size import ModelSize

_HEAD_COLUMNS = 8192
"""Of the head's products when measured: what of the vocabulary a tile holds."""
_ROWS = 512
"""Of every product when measured, at most."""
_PRODUCT_S = 0.01
"""Each product is repeated for at least so long."""


@dataclass(frozen=True)
class Work:
    """What went through a model, added up over passes."""

    tokens: int = 0
    """Through the body."""
    learnt: int = 0
    """Predictions that the head was asked for."""
    attended: int = 0
    """Pairs of a query and a key that it may look at."""

    def __add__(self, other: "Work") -> "Work":
        return Work(
            self.tokens + other.tokens,
            self.learnt + other.learnt,
            self.attended + other.attended,
        )

    @classmethod
    def of(cls, prefix: int, suffixes: Sequence[int], learnt: int = 0) -> "Work":
        """A prefix of so many tokens and the suffixes that go on from it, each apart."""
        return cls(
            prefix + sum(suffixes),
            learnt,
            prefix * (prefix + 1) // 2 + sum(n * prefix + n * (n + 1) // 2 for n in suffixes),
        )


@dataclass(frozen=True)
class Product:
    """A matrix of a model: [rows, inner] @ [inner, columns], `times` over in a pass."""

    inner: int
    columns: int
    times: int

    @property
    def values(self) -> int:
        """Of the matrix, all times together."""
        return self.inner * self.columns * self.times


@dataclass(frozen=True)
class FlopCount:
    """Floating-point operations of a decoder; a multiplication with its addition is two.

    Norms, activations and the softmax are left out: they are no products.
    """

    body: tuple[Product, ...]
    """The linear layers of all layers."""
    head: Product
    attention: int
    """Of queries with keys and of weights with values: forward operations for each pair of them."""

    @classmethod
    def of(cls, size: ModelSize) -> "FlopCount":
        """Of a model of this size."""
        hidden, middle, layers = size.hidden_size, size.intermediate_size, size.num_hidden_layers
        body = (
            Product(hidden, size.queries, layers),
            Product(hidden, size.keys, 2 * layers),
            Product(size.queries, hidden, layers),
            Product(hidden, middle, 2 * layers),
            Product(middle, hidden, layers),
        )
        return cls(body, Product(hidden, size.vocab_size, 1), 4 * layers * size.queries)

    def forward(self, work: Work) -> int:
        """A pass without gradients."""
        return (
            2 * work.tokens * sum(product.values for product in self.body)
            + 2 * work.learnt * self.head.values
            + work.attended * self.attention
        )

    def useful(self, work: Work) -> int:
        """Forward and backward, each product once: the backward pass has two for every one."""
        return 3 * self.forward(work)

    def done(self, work: Work, *, checkpointing: bool = False) -> int:
        """As `useful`, with what is computed again: the head's tiles, and the body on request."""
        again = 2 * work.learnt * self.head.values
        if checkpointing:
            again = self.forward(work)
        return self.useful(work) + again

    def shapes(self, rows: int = _ROWS) -> tuple[tuple[int, int, int, int], ...]:
        """(rows, inner, columns, weight) of the products to measure for passes of `rows` tokens.

        The weight is the product's part of the work, in values of its matrix.
        """
        rows = max(1, min(rows, _ROWS))
        columns = min(self.head.columns, _HEAD_COLUMNS)
        return (
            *((rows, product.inner, product.columns, product.values) for product in self.body),
            (rows, self.head.inner, columns, self.head.values),
        )


@lru_cache(maxsize=16)
def matmul_rate(
    dtype: torch.dtype, device: torch.device, shapes: tuple[tuple[int, int, int, int], ...]
) -> float:
    """Floating-point operations a second of torch.matmul over these products.

    Each (rows, inner, columns, weight) is multiplied as a linear layer is in training: forward,
    for its input's gradient and for its weight's; the weights say how much each counts. Measured
    once a process, the quickest of some repetitions. Draws no random numbers.
    """
    seconds = operations = 0.0
    for rows, inner, columns, weight in shapes:
        size = 6.0 * rows * inner * columns
        share = weight / (inner * columns)
        operations += share * size
        seconds += share * _products_seconds(rows, inner, columns, dtype, device)
    return operations / seconds


def _products_seconds(
    rows: int, inner: int, columns: int, dtype: torch.dtype, device: torch.device
) -> float:
    """The three products of a linear layer."""
    seen = torch.full((rows, inner), 0.01, dtype=dtype, device=device)
    weight = torch.full((columns, inner), 0.01, dtype=dtype, device=device)
    above = torch.full((rows, columns), 0.01, dtype=dtype, device=device)
    return (
        _quickest(lambda: seen @ weight.T, device)
        + _quickest(lambda: above @ weight, device)
        + _quickest(lambda: above.T @ seen, device)
    )


def _quickest(call: Callable[[], object], device: torch.device) -> float:
    call()  # the first one may prepare something
    best = float("inf")
    until = time.perf_counter() + _PRODUCT_S
    while best == float("inf") or time.perf_counter() < until:
        _finish(device)
        began = time.perf_counter()
        call()
        _finish(device)
        best = min(best, time.perf_counter() - began)
    return best


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
