"""The canary: a fixed text whose log-probabilities tell whether weights were loaded well.

Checksums find weights that were damaged on the way. They cannot find weights that arrived well
and were loaded badly, e.g. into one copy of a tied matrix and not into the other.
"""

import math
import random
from collections.abc import Sequence

from pairloop.data.v1.weights_pb2 import Canary, TensorMismatch

LENGTH = 48
FLOAT32_TOLERANCE = 5e-4
"""Nats; kernels that sum in another order differ by about 1e-5."""
HALF_TOLERANCE = 0.1
"""Nats; for 16-bit engines against a float32 forward of the same rounded weights."""


def canary_tokens(vocabulary: int, seed: int = 0, length: int = LENGTH) -> list[int]:
    """Token ids drawn uniformly from `vocabulary`; the same for the same arguments."""
    draw = random.Random(f"canary/{vocabulary}/{seed}")
    return [draw.randrange(vocabulary) for _ in range(length)]


def default_tolerance(dtype: str) -> float:
    """Largest difference allowed to an engine of this dtype, in nats."""
    return FLOAT32_TOLERANCE if dtype == "float32" else HALF_TOLERANCE


def difference(expected: Sequence[float], found: Sequence[float]) -> float:
    """Largest absolute difference in nats; infinite for NaN and for fewer values than expected."""
    if len(found) < len(expected):
        return math.inf
    gaps = [abs(e - f) for e, f in zip(expected, found, strict=False)]
    return max((math.inf if math.isnan(gap) else gap for gap in gaps), default=0.0)


def compare(
    expected: Sequence[float], found: Sequence[float], tolerance: float
) -> TensorMismatch | None:
    """The mismatch of a canary, under the tensor name "canary"; None within the tolerance."""
    gap = difference(expected, found)
    if gap <= tolerance:
        return None
    return TensorMismatch(
        tensor="canary",
        expected=f"within {tolerance:g} nats of the learner",
        found=f"{gap:.3g} nats away",
    )


def build_canary(token_ids: Sequence[int], logprobs: Sequence[float], tolerance: float) -> Canary:
    """The message: `logprobs` are of token_ids[1:], in nats."""
    return Canary(token_ids=token_ids, logprobs=logprobs, tolerance=tolerance)
