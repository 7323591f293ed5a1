"""Mending of plans: if a few workers cannot decode with random matrices, only single rows are replaced.

With random matrices, a worker cannot decode with a probability of about 1/255, so that with 500 workers only
one draw in seven serves all of them. Three small changes mend a draw. A worker that is not sent all rows gets
a later row in place of its last one. For the workers that are sent all rows, the last row of the downlink
matrix is drawn again: candidates are tested against one vector per worker, which takes no elimination. If
the uplink rows themselves do not suffice for a worker, the last row of another worker is drawn again in the
same way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

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
from asyncdmtl.plan.codes.matrices import random_matrix, redrawn_row, unit_columns
from asyncdmtl.plan.limits import MOST_LAST_ROWS
from asyncdmtl.plan.parameters import PlanParameters
from asyncdmtl.plan.plan import Plan

# The number of candidates for the last row that are tested in one product.
_CANDIDATES = 64

# The most workers of which another draw of the last uplink row is tried: each takes an elimination, and the
# first one serves nearly always.
_REDRAWN = 2


def decodable_plan(parameters: PlanParameters) -> Plan | None:
    """The plan with these parameters, mended so that every worker can decode; None if that fails."""
    plan = build_plan(parameters)
    mended = _with_mended_downlink(parameters, plan)
    coded = plan.strategy == "relay" and not plan.senders
    if mended is None and coded and (redrawn := _redrawn(plan)) is not None:
        parameters = replace(parameters, redrawn=(redrawn,))
        mended = _with_mended_downlink(parameters, build_plan(parameters))
    return mended


def _with_mended_downlink(parameters: PlanParameters, plan: Plan) -> Plan | None:
    """The plan with these parameters, of which `plan` is a draw, with other downlink rows where needed."""
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
    unknown = [linalg.null_space(basis[columns]) for columns in known]
    if any(vectors.shape[1] != 1 for vectors in unknown):
        return 0
    open_rows = dense_product(basis, np.hstack(unknown))
    if plan.broadcasts == "updates":
        open_rows = dense_product(plan.uplink_matrix, open_rows)
    return _first_serving(
        lambda number: random_matrix(f"downlink/last/{number}", plan.seed, 1, len(open_rows)), open_rows
    )


def _redrawn(plan: Plan) -> tuple[int, int] | None:
    """A worker, and the number of the draw of its last uplink row with which all uplink rows suffice.

    None if they suffice as they are, or if one row cannot mend them.
    """
    E, wanting = plan.uplink_matrix, [k for k in range(len(plan.uplink_rows)) if k not in set(plan.helpers)]
    columns = [plan.units.columns(held, plan.subpackets) for held in plan.units.held]
    sending = [k for k, rows in enumerate(plan.uplink_rows) if rows]
    for worker in sorted(sending, key=lambda k: -len(columns[k]))[:_REDRAWN]:
        row = sum(plan.uplink_rows[: worker + 1]) - 1
        basis = linalg.null_space(np.delete(E, row, axis=0))
        # What each worker cannot tell apart without the row: at most one vector may be left for the row.
        unknown = {k: linalg.null_space(basis[columns[k]]) for k in wanting}
        if unknown.get(worker, np.empty((0, 0))).shape[1] or max(u.shape[1] for u in unknown.values()) > 1:
            continue
        open_vectors = dense_product(basis, np.hstack(list(unknown.values())))[columns[worker]]
        if dense_product(E[[row]][:, columns[worker]], open_vectors).all():
            return None
        draw = partial(redrawn_row, worker, seed=plan.seed, columns=len(open_vectors))
        if number := _first_serving(draw, open_vectors):
            return worker, number
    return None


def _first_serving(draw: Callable[[int], Bytes], open_vectors: Bytes) -> int:
    """The first number, from 1 on, whose row (1, n) maps no column of `open_vectors` (n, ·) to 0; else 0."""
    for first in range(1, MOST_LAST_ROWS, _CANDIDATES):
        numbers = range(first, min(first + _CANDIDATES, MOST_LAST_ROWS))
        serves_all = dense_product(np.vstack([draw(number) for number in numbers]), open_vectors).all(axis=1)
        if serves_all.any():
            return numbers[int(serves_all.argmax())]
    return 0
