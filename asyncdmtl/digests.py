"""Digests: short fingerprints by which two ends find out whether they have the same bytes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray

# Bytes of the digest of an exchanged vector or state. One digest travels for each stored partition in each
# round; eight bytes tell accidents apart.
VECTOR_DIGEST_BYTES = 8

# Bytes of the digest of a partition's content. It travels once, and tells the server whether two workers
# store copies of the same rows.
CONTENT_DIGEST_BYTES = 16


def digest(vector: NDArray[np.generic]) -> bytes:
    """8 bytes (XXH3-64) that tell apart vectors that differ by accident."""
    return xxhash.xxh3_64_digest(np.ascontiguousarray(vector).view(np.uint8).data)


def combined_digest(digests: Sequence[bytes]) -> bytes:
    """One digest for a sequence of them."""
    return xxhash.xxh3_64_digest(b"".join(digests))
