"""Codes of linear targets with silent workers whose systems are better conditioned than random ones.

Many systems are solved with one matrix `S`, one for each set of holders and one for each set of responders.
Of many random systems, one is nearly singular. The sum over all systems of `Σ_i 1/σ_i²`, with their non-zero
singular values `σ_i`, is lowered by steps against its gradient. `S` keeps its support and the lengths of its
columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arrays import Floats
from asyncdmtl.field import real

# The most steps, and the lengths of the first and of the smallest, relative to the norm of `S`.
_STEPS = 120
_FIRST_STEP, _SMALLEST_STEP = 0.1, 1e-4

# The most numbers in all systems together for which steps are taken: some seconds.
_MOST_NUMBERS = 400_000


def well_conditioned(
    S: Floats, Lambda: Floats, outsides: Sequence[NDArray[np.int64]], responders: Sequence[NDArray[np.int64]]
) -> Floats:
    """A matrix with the support of `S` whose systems have smaller condition numbers.

    Parameters
    ----------
    S : (rows, L)
        Rows of all workers.
    Lambda : (r, L)
        Images of the columns.
    outsides : sequence of arrays of rows
        Each gives a system `[S[rows]; Lambda]`.
    responders : sequence of arrays of rows
        Each gives a system `S[rows]`.
    """
    numbers = S.shape[1] ** 2 * (len(outsides) + len(responders))
    if not S.size or numbers > _MOST_NUMBERS:
        return S
    support, size = S != 0, float(np.linalg.norm(S))
    step, (value, gradient) = _FIRST_STEP, _measured(S, Lambda, outsides, responders)
    for _ in range(_STEPS):
        gradient = np.where(support, gradient, 0.0)
        length = float(np.linalg.norm(gradient))
        if not length or step < _SMALLEST_STEP:
            break
        moved = real.unit_columns(S - step * size / length * gradient) * np.linalg.norm(S, axis=0)
        found = _measured(moved, Lambda, outsides, responders)
        if found[0] < value:
            S, (value, gradient), step = moved, found, step * 1.2
        else:
            step /= 2
    return S


def _measured(
    S: Floats, Lambda: Floats, outsides: Sequence[NDArray[np.int64]], responders: Sequence[NDArray[np.int64]]
) -> tuple[float, Floats]:
    """The value that is to be small, and its gradient by the entries of `S`."""
    value, gradient = 0.0, np.zeros_like(S)
    for rows, below in [*((rows, Lambda) for rows in outsides), *((rows, Lambda[:0]) for rows in responders)]:
        M = np.vstack([S[rows], below])
        left, values, right = np.linalg.svd(M, full_matrices=False)
        kept = values > real.RANK_TOLERANCE * values[0]
        left, values, right = left[:, kept], values[kept], right[kept]
        value += float(np.sum(values**-2.0))
        gradient[rows] -= 2.0 * ((left * values**-3.0) @ right)[: len(rows)]
    return value, gradient
