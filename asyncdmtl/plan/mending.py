"""Making every worker decode: where a random draw fails a few workers, those are mended, not all drawn again.

A draw fails one worker with a probability of about 1/255, so that with 500 workers only one draw in seven
serves all. Two small changes mend a draw. A worker that is not sent all rows gets a later row in place of its
last one. For the workers that are sent all rows, the last row of the downlink matrix is drawn again:
candidates are tested against one vector per worker, which takes no elimination.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from asyncdmtl.arrays import Bytes
from asyncdmtl.field import linalg
from asyncdmtl.field.gf256 import dense_product
from asyncdmtl.plan.building import build_plan
from asyncdmtl.plan.codes.decodability import later_row_for, null_spaces, undecodable
from asyncdmtl.plan.codes.matrices import random_matrix
from asyncdmtl.plan.limits import MOST_LAST_ROWS
from asyncdmtl.plan.parameters import PlanParameters
from asyncdmtl.plan.plan import Plan

# Candidates for the last row that are tested in one product.
_CANDIDATES = 64


def decodable_plan(parameters: PlanParameters) -> Plan | None:
    """The plan with these parameters, mended where a worker cannot decode; None if that does not help."""
    plan = build_plan(parameters)
    failing = undecodable(plan.combined, list(map(plan.in_columns, plan.deliveries)))
    if not failing:
        return plan
    everything = len(plan.downlink_matrix)
    last_row = 0
    if any(len(plan.deliveries[k].rows) == everything for k in failing):
        if (last_row := _last_row(plan)) == 0:
            return None
        parameters = replace(parameters, last_row=last_row)
        plan = build_plan(parameters)
    replaced = _replacements(plan, [k for k in failing if len(plan.deliveries[k].rows) < everything])
    if replaced is None:
        return None
    mended = build_plan(replace(parameters, replaced=replaced))
    return None if undecodable(mended.combined, list(map(mended.in_columns, mended.deliveries))) else mended


def _last_row(plan: Plan) -> int:
    """The number of the first draw of the last downlink row that serves all workers sent all rows; or 0."""
    everything = len(plan.downlink_matrix)
    ((_, basis),) = null_spaces(plan.combined, [everything - 1])
    open_vectors = []
    for delivery in plan.deliveries:
        if len(delivery.rows) == everything:
            own = basis[plan.in_columns(delivery).known]
            if linalg.rank(own) < basis.shape[1] - 1:
                return 0
            open_vectors.append(dense_product(basis, linalg.null_space(own)))
    # What the server combines, times the vectors that each worker's other rows leave open.
    open_rows = np.hstack(open_vectors)
    if plan.broadcasts == "updates":
        open_rows = dense_product(plan.uplink_matrix, open_rows)
    for first in range(1, MOST_LAST_ROWS, _CANDIDATES):
        numbers = range(first, min(first + _CANDIDATES, MOST_LAST_ROWS))
        labels = [f"downlink/last/{number}" for number in numbers]
        rows = np.vstack([random_matrix(label, plan.seed, 1, len(open_rows)) for label in labels])
        serves_all = dense_product(rows, open_rows).all(axis=1)
        if serves_all.any():
            return numbers[int(serves_all.argmax())]
    return 0


def _replacements(plan: Plan, failing: Sequence[int]) -> tuple[tuple[int, int], ...] | None:
    """For each of these workers a later row in place of its last one; None if one has no such row."""
    G, found = plan.combined, []
    bases: dict[int, Bytes] = dict(null_spaces(G, [len(plan.deliveries[k].rows) - 1 for k in failing]))
    for k in failing:
        rows = len(plan.deliveries[k].rows)
        row = later_row_for(G, bases[rows - 1], plan.in_columns(plan.deliveries[k]).known, rows)
        if row is None:
            return None
        found.append((k, row))
    return tuple(found)
