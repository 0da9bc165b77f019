"""Near duplicates by MinHash and banded locality-sensitive hashing.

Source: Broder, "On the resemblance and containment of documents" (1997); banding as in
Leskovec et al., "Mining of Massive Datasets", 3.4.
"""

import zlib

import numpy as np
from numpy.typing import NDArray

_PERMUTATIONS = 128
_BANDS = 32
_SHINGLE = 5
_PRIME = np.uint64((1 << 31) - 1)
_CHUNK = 4096

Signature = NDArray[np.uint32]


class NearDuplicates:
    """Remembers texts; tells whether a new one is nearly one of them.

    A pair of Jaccard similarity s over 5-word shingles becomes a candidate with probability
    1 - (1 - s^4)^32 (above 0.99 from s = 0.63 on) and is a near duplicate when the share of
    equal signature values, whose standard deviation is at most 0.045, reaches `similarity`.
    """

    def __init__(self, similarity: float) -> None:
        self._similarity = similarity
        self._signatures: list[Signature] = []
        self._buckets: dict[tuple[int, bytes], list[int]] = {}

    def seen(self, text: str) -> bool:
        """Whether the text is nearly one that was remembered; it is remembered if not."""
        mine = signature(text)
        keys = list(enumerate(band.tobytes() for band in mine.reshape(_BANDS, -1)))
        candidates = {at for key in keys for at in self._buckets.get(key, ())}
        if any(similarity(mine, self._signatures[at]) >= self._similarity for at in candidates):
            return True
        for key in keys:
            self._buckets.setdefault(key, []).append(len(self._signatures))
        self._signatures.append(mine)
        return False


def signature(text: str) -> Signature:
    """MinHash signature of a text's 5-word shingles: uint32 of shape (128,)."""
    words = text.lower().split()
    count = max(1, len(words) - _SHINGLE + 1)
    shingles = {" ".join(words[at : at + _SHINGLE]) for at in range(count)}
    hashes = np.array([zlib.crc32(shingle.encode()) for shingle in shingles], dtype=np.uint64)
    hashes %= _PRIME
    lowest = np.full(_PERMUTATIONS, _PRIME, dtype=np.uint64)
    for at in range(0, len(hashes), _CHUNK):
        # a * h + b stays below 2^62, so nothing overflows.
        permuted = (_A[:, None] * hashes[None, at : at + _CHUNK] + _B[:, None]) % _PRIME
        np.minimum(lowest, permuted.min(axis=1), out=lowest)
    return lowest.astype(np.uint32)


def similarity(one: Signature, other: Signature) -> float:
    """Estimated Jaccard similarity: the share of equal values."""
    return float(np.mean(one == other))


_random = np.random.default_rng(2017)
_A = _random.integers(1, int(_PRIME), _PERMUTATIONS, dtype=np.uint64)
_B = _random.integers(0, int(_PRIME), _PERMUTATIONS, dtype=np.uint64)
