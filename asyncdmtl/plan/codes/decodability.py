"""The exact check that every worker can decode, with one elimination for all workers.

Worker `k` gets the first `r_k` rows of `G`. It can decode iff no vector other than 0 lies in the null space
of these rows and is zero at every column that the worker knows. With a basis `B` of that null space, the rows
of `B` at the known columns must be a non-singular matrix. Its size is the number of columns that the worker
knows, and the null spaces of growing numbers of rows follow from each other, so one elimination of `G` serves
all workers. A worker that stores more than it lacks is checked by the rank of its own system, which is then
the smaller matrix.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from asyncdmtl.arrays import Bytes, Indices
from asyncdmtl.field import linalg
from asyncdmtl.field.gf256 import dense_product
from asyncdmtl.plan.codes.matrices import ColumnDelivery, unit_columns


def undecodable(
    G: Bytes, deliveries: Sequence[ColumnDelivery], bases: Mapping[int, Bytes] | None = None
) -> list[int]:
    """The workers that cannot decode their wanted vectors from the rows they are sent. The check is exact.

    Parameters
    ----------
    G : uint8 array (R_down·P, columns)
        The rows of the downlink as combinations of packets.
    deliveries : sequence of ColumnDelivery
    bases : mapping of int to uint8 array, optional
        `null_space_bases` for the numbers of rows in `null_space_counts`, if they are known already.

    Notes
    -----
    Worker `k` decodes iff the wanted columns of its rows of `G` are linearly independent and the columns
    that it neither wants nor knows are zero (docs/theory.md, section 4).
    """
    plain = unit_columns(G)
    if plain is not None:
        received = [np.sort(plain[list(delivery.rows)]) for delivery in deliveries]
        return [k for k, got in enumerate(received) if not np.array_equal(got, deliveries[k].wanted)]
    counts = null_space_counts(G, deliveries)
    if bases is None:
        bases = null_space_bases(G, counts.values())
    failing = []
    for k, delivery in enumerate(deliveries):
        if k not in counts:
            decodes = _decodes(G, delivery)
        else:
            known = bases[counts[k]][delivery.known]
            decodes = known.shape[0] == known.shape[1] == linalg.rank(known)
        if not decodes:
            failing.append(k)
    return failing


def null_space_counts(G: Bytes, deliveries: Sequence[ColumnDelivery]) -> dict[int, int]:
    """The number of leading rows of each worker that is checked by a null space."""
    everything = tuple(range(len(G)))
    return {
        k: len(delivery.rows)
        for k, delivery in enumerate(deliveries)
        if len(delivery.known) < len(delivery.wanted) == len(delivery.rows)
        and delivery.rows == everything[: len(delivery.rows)]
        and len(delivery.known) + len(delivery.wanted) == G.shape[1]
    }


def null_space_bases(G: Bytes, counts: Iterable[int]) -> dict[int, Bytes]:
    """For each number in `counts`, a basis of the null space of that many leading rows of `G`."""
    bases: dict[int, Bytes] = {}
    basis: Bytes | None = None
    before = 0
    for count in sorted(set(counts)):
        rows = G[before:count]
        fresh = linalg.null_space(rows if basis is None else dense_product(rows, basis))
        basis = fresh if basis is None else dense_product(basis, fresh)
        before = count
        bases[count] = basis
    return bases


def _decodes(G: Bytes, delivery: ColumnDelivery) -> bool:
    received = G[list(delivery.rows)]
    wanted = np.ascontiguousarray(received[:, delivery.wanted])
    foreign = np.ones(G.shape[1], dtype=bool)
    foreign[delivery.wanted] = foreign[delivery.known] = False
    return not received[:, foreign].any() and linalg.rank(wanted) == wanted.shape[1]


def later_row_for(G: Bytes, basis: Bytes, known: Indices, first: int) -> int | None:
    """The first row of `G`, from `first` on, with which in place of its last row a worker can decode.

    Parameters
    ----------
    basis : uint8 array (columns, ·)
        A basis of the null space of the worker's other rows.
    known : array of int
        The columns that the worker knows.
    """
    own = basis[known]
    if own.shape[0] != basis.shape[1] - 1 or linalg.rank(own) < len(own):
        return None
    open_vector = dense_product(basis, linalg.null_space(own))
    useful = np.flatnonzero(dense_product(G[first:], open_vector).any(axis=1))
    return first + int(useful[0]) if useful.size else None
