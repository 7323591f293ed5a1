"""Linear targets row by row: each combination has an uplink of its own, and the server stacks their rows.

With many workers, some of which may be silent, this can have a much smaller load than the common uplink that
the search finds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from asyncdmtl.arrays import Floats
from asyncdmtl.errors import CodingError
from asyncdmtl.field import real
from asyncdmtl.plan.linear.matrices import build_uplink, checked_uplink
from asyncdmtl.plan.linear.targets import Target, cut_bound
from asyncdmtl.plan.placement import Placement

# A row counts as dependent on others if its part outside their span is smaller than this, relative to the
# row.
_DEPENDENT = 1e-9


def independent_rows(matrix: Floats) -> list[int]:
    """The rows that are no combinations of earlier rows, in order."""
    chosen: list[int] = []
    basis = np.zeros((0, matrix.shape[1]))
    unit = real.unit_columns(matrix.T).T
    for i, row in enumerate(unit):
        rest = row - (row @ basis.T) @ basis
        if np.linalg.norm(rest) > _DEPENDENT:
            chosen.append(i)
            basis = real.row_basis(unit[chosen])
    return chosen


def uplink_row_by_row(
    placement: Placement,
    target: Target,
    matrix: Floats,
    responders: Sequence[tuple[int, ...]],
    rng: np.random.Generator,
    *,
    subpackets: int,
    silent: int,
) -> tuple[list[Floats], float] | None:
    """Uplink matrices (R_k·P, N·P) of the rows of `matrix`, and their worst condition; None if they do not
    decode.

    The matrices are in the coordinates of `target`, the reduced form of `matrix`: per unit of a column.
    """
    parts: list[list[Floats]] = [[] for _ in placement.workers]
    worst = 1.0
    for i in independent_rows(matrix):
        row = Target(placement, matrix[i : i + 1])
        bound = cut_bound(row, subpackets=subpackets, silent=silent)
        W, condition = build_uplink(row, bound, responders, rng, subpackets, silent)
        worst = max(worst, condition)
        # Converts from the scale of this row's columns to the scale of the whole target's.
        ratio = np.where(target.scales > 0, row.scales / np.where(target.scales > 0, target.scales, 1.0), 0.0)
        for part, own in zip(parts, W, strict=True):
            part.append(own * np.repeat(ratio, subpackets))
    try:
        return checked_uplink(target, responders, subpackets, [np.vstack(part) for part in parts], worst)
    except CodingError:
        return None
