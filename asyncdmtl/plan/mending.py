"""Mending of plans: if a few workers cannot decode with random matrices, only single rows are replaced.

With random matrices, a worker cannot decode with a probability of about 1/255, so that with 500 workers only
one draw in seven serves all of them. Two small changes mend a draw. A worker that is not sent all rows gets a
later row in place of its last one. For the workers that are sent all rows, the last row of the downlink
matrix is drawn again: candidates are tested against one vector per worker, which takes no elimination.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from asyncdmtl.arrays import Bytes, Indices
from asyncdmtl.field import linalg
from asyncdmtl.field.gf256 import dense_product
from asyncdmtl.plan.building import build_plan
from asyncdmtl.plan.codes.decodability import (
    later_row_for,
    null_space_bases,
    null_space_counts,
    undecodable,
)
from asyncdmtl.plan.codes.matrices import random_matrix, unit_columns
from asyncdmtl.plan.limits import MOST_LAST_ROWS
from asyncdmtl.plan.parameters import PlanParameters
from asyncdmtl.plan.plan import Plan

# The number of candidates for the last row that are tested in one product.
_CANDIDATES = 64


def decodable_plan(parameters: PlanParameters) -> Plan | None:
    """The plan with these parameters, mended so that every worker can decode; None if that fails."""
    plan = build_plan(parameters)
    deliveries = list(map(plan.in_columns, plan.deliveries))
    if unit_columns(plan.combined) is not None:
        return None if undecodable(plan.combined, deliveries) else plan
    counts = null_space_counts(plan.combined, deliveries)
    # Mending needs the null spaces of a worker's rows without the last one. One elimination gives all of
    # them.
    wanted = {count - less for count in counts.values() for less in (0, 1)}
    bases = null_space_bases(plan.combined, wanted)
    failing = undecodable(plan.combined, deliveries, bases)
    if not failing:
        return plan
    if not counts.keys() >= set(failing):
        return None
    everything = len(plan.downlink_matrix)
    if any(counts[k] == everything for k in failing):
        sent_all = [deliveries[k].known for k, count in counts.items() if count == everything]
        # A worker that is sent all rows, but checked by its own system, could fail with another last row.
        if len(sent_all) < sum(len(delivery.rows) == everything for delivery in deliveries):
            return None
        if (last_row := _last_row(plan, bases[everything - 1], sent_all)) == 0:
            return None
        plan = build_plan(replace(parameters, last_row=last_row))
    replaced = []
    for k in failing:
        if (rows := counts[k]) < everything:
            row = later_row_for(plan.combined, bases[rows - 1], deliveries[k].known, rows)
            if row is None:
                return None
            replaced.append((k, row))
    if not replaced:
        return plan
    return build_plan(replace(parameters, last_row=plan.last_row, replaced=tuple(replaced)))


def _last_row(plan: Plan, basis: Bytes, known: Sequence[Indices]) -> int:
    """The number of the first draw of the last downlink row with which all these workers decode; 0 if none.

    `basis` spans the null space of all other rows, and `known` has the columns that each worker knows. A
    worker decodes iff its other rows leave one vector undetermined and the last row does not map that vector
    to 0.
    """
    open_vectors = []
    for columns in known:
        own = basis[columns]
        if not len(own) == basis.shape[1] - 1 == linalg.rank(own):
            return 0
        open_vectors.append(dense_product(basis, linalg.null_space(own)))
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
