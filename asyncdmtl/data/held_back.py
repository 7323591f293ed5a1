"""Test rows of a partition: all its holders hold out the same rows, without communication."""

from __future__ import annotations

import numpy as np

from asyncdmtl.arrays import Indices
from asyncdmtl.data.stored import Stored
from asyncdmtl.digests import draws


def hold_back(stored: Stored, share: float, seed: int) -> tuple[Stored, Stored | None]:
    """The training rows and the test rows of a partition; None in place of test rows if there are none.

    Both keep the order of the rows. At least one row is left to train on.

    Parameters
    ----------
    stored : Stored
    share : float
        The share of test rows, from 0 to below 1.
    seed : int
        The seed of the run.
    """
    held = held_rows(stored, share, seed)
    if not len(held):
        return stored, None
    kept = np.delete(np.arange(stored.rows), held)
    return stored.take(kept), stored.take(held)


def held_rows(stored: Stored, share: float, seed: int) -> Indices:
    """The indices of the test rows, ascending.

    Their number is the share of the rows, rounded up or down at random, so that many small partitions
    together have the right share. Rows are sorted by a hash of the partition's name and their index, keyed
    with the seed, and test rows are taken at equal distances. Two classes are sorted one after the other, so
    that both have their share.
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
