"""Rows of a partition that its holders keep for tests: all of them keep the same, without a word."""

from __future__ import annotations

import numpy as np

from asyncdmtl.arrays import Indices
from asyncdmtl.data.stored import Stored
from asyncdmtl.digests import draws


def hold_back(stored: Stored, share: float, seed: int) -> tuple[Stored, Stored | None]:
    """The rows of a partition to train on, and those to test on; None if there are none of these.

    Both keep the order of the rows. At least one row is left to train on.

    Parameters
    ----------
    stored : Stored
    share : float
        From 0 to below 1.
    seed : int
        The run's.
    """
    held = held_rows(stored, share, seed)
    if not len(held):
        return stored, None
    kept = np.delete(np.arange(stored.rows), held)
    return stored.take(kept), stored.take(held)


def held_rows(stored: Stored, share: float, seed: int) -> Indices:
    """The places of the rows to test on, ascending.

    Their number is the share of the rows, rounded up or down at random, so that many small partitions keep
    their share together. Rows are ordered by a hash of the partition's name and their place, keyed with the
    seed, and taken at equal distances; where there are two classes, one after the other, so that both keep
    their share.
    """
    rows = stored.rows
    *order, rounding = draws(b"test" + seed.to_bytes(8, "little") + stored.id.encode(), rows + 1)
    count = min(int(share * rows + rounding / 2**64), rows - 1)
    if count < 1:
        return np.zeros(0, np.int64)
    targets = stored.targets.tolist()
    classes = sorted(set(targets)) if len(set(targets)) == 2 else []
    places = sorted(range(rows), key=lambda row: (targets[row] in classes[1:], order[row]))
    chosen = (2 * np.arange(count) + 1) * rows // (2 * count)
    return np.sort(np.array(places, np.int64)[chosen])
