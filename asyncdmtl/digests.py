"""Digests: short fingerprints by which server and workers find out whether they have the same bytes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray

# Bytes of the digest of an exchanged vector or state. One digest travels for each stored partition in each
# round, so it is short: eight bytes detect accidents, though not attacks.
VECTOR_DIGEST_BYTES = 8

# Bytes of the digest of a partition's content. It travels once, and tells the server whether two workers
# store copies of the same rows.
CONTENT_DIGEST_BYTES = 16


def digest(vector: NDArray[np.generic]) -> bytes:
    """The XXH3-64 of a vector's bytes, 8 bytes: it detects accidental differences."""
    return xxhash.xxh3_64_digest(np.ascontiguousarray(vector).view(np.uint8).data)


def combined_digest(digests: Sequence[bytes]) -> bytes:
    """One digest of a sequence of digests, 8 bytes."""
    return xxhash.xxh3_64_digest(b"".join(digests))
