"""Uplink and downlink matrices over GF(2^8).

Entries are random on the support that the placement allows (docs/theory.md, section 4): whenever the
loads meet the cut-set bounds, generic entries let every worker decode, and a failed check costs a retry
with the next seed. Entries come from SHAKE-256, so that a seed gives the same matrix on every machine, with
any versions of libraries.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arrays import Bytes, Indices
from asyncdmtl.errors import UsageError
from asyncdmtl.extensions import Registry
from asyncdmtl.field.gf256 import dense_product
from asyncdmtl.plan.placement import Placement


def packets(indices: Sequence[int], subpackets: int) -> NDArray[np.intp]:
    """Columns of the packets of the vectors `indices`: vector `n` has the packets `n·P … n·P + P − 1`."""
    first = np.asarray(indices, dtype=np.intp)[:, None] * subpackets
    return (first + np.arange(subpackets, dtype=np.intp)).reshape(-1)


@dataclass(frozen=True)
class Delivery:
    """The downlink of one worker.

    Vectors are units, or tasks where the server aggregates (`Plan.broadcasts`).

    Attributes
    ----------
    rows : tuple of int
        The rows of the downlink matrix that the worker is sent, in packets.
    wanted : tuple of int
        The vectors that it decodes from these rows, ascending.
    known : tuple of int
        The vectors that the worker has, and uses as side information, ascending.
    """

    rows: tuple[int, ...]
    wanted: tuple[int, ...]
    known: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class ColumnDelivery:
    """A delivery whose vectors are given as matrix columns (of packets), in the order of packed vectors."""

    rows: tuple[int, ...]
    wanted: Indices
    known: Indices


Entries = Callable[[str, int, int, int], Bytes]


def random_matrix(label: str, seed: int, rows: int, columns: int) -> Bytes:
    """A (rows, columns) uint8 matrix of uniform field elements that `label` and `seed` determine."""
    stream = hashlib.shake_256(f"asyncdmtl/{label}/{seed}/{rows}x{columns}".encode())
    return np.frombuffer(stream.digest(rows * columns), dtype=np.uint8).reshape(rows, columns)


ENTRIES: Registry[Entries] = Registry("matrices", {"random": random_matrix})
"""Draws of the entries of coding matrices, by name."""


def register_matrices(name: str, entries: Entries) -> Entries:
    """Make a function that draws entries of coding matrices known by this name, to plans and --matrices.

    It is called as `entries(label, seed, rows, columns)` and returns a (rows, columns) uint8 array, elements
    of GF(2^8), the same on every machine. The label tells apart the matrices of a plan and the blocks of
    workers. Where a worker stores a column of the uplink, entries of 0 become 1. Every plan is checked, and
    the next seed is tried if some worker cannot decode.

    Returns
    -------
    The function.

    Raises
    ------
    UsageError
        The name is malformed or is "random"; or `entries` is no function. Later, if it returns another shape
        or dtype.
    """
    if not callable(entries):
        raise UsageError(f"matrices {name}", "must be a function of label, seed, rows and columns", entries)

    @functools.wraps(entries)
    def checked(label: str, seed: int, rows: int, columns: int) -> Bytes:
        found = entries(label, seed, rows, columns)
        if not isinstance(found, np.ndarray) or found.shape != (rows, columns) or found.dtype != np.uint8:
            what = (found.shape, str(found.dtype)) if isinstance(found, np.ndarray) else type(found).__name__
            raise UsageError(f"matrices {name}", f"must return uint8 of shape {(rows, columns)}", what)
        return found

    ENTRIES.register(name, checked)
    return entries


def redrawn_row(worker: int, number: int, *, seed: int, columns: int) -> Bytes:
    """Draw `number` of the last uplink row of a worker, (1, columns), at the columns that it stores."""
    return np.maximum(random_matrix(f"uplink/{worker}/last/{number}", seed, 1, columns), 1)


def coded_uplink(
    placement: Placement,
    uplink_rows: Sequence[int],
    subpackets: int,
    seed: int,
    redrawn: Sequence[tuple[int, int]] = (),
    matrices: str = "random",
) -> Bytes:
    """`E`, of shape (Σ uplink_rows, N·P): random, not 0, where a worker stores the column, zero elsewhere.

    Row blocks follow the order of the workers; worker `k` owns `uplink_rows[k]` of them. The last row of a
    worker in `redrawn` is another draw, of this number. `matrices` is a name in `ENTRIES`.
    """
    draws = dict(redrawn)
    columns = len(placement.partitions) * subpackets
    E = np.zeros((sum(uplink_rows), columns), dtype=np.uint8)
    first = 0
    for k, rows in enumerate(uplink_rows):
        support = packets(placement.stored[k], subpackets)
        entries = ENTRIES[matrices](f"uplink/{k}", seed, rows, len(support))
        # No entry may be 0: if a worker stores little, one entry of 0 could make it impossible for others to
        # decode.
        E[first : first + rows, support] = np.maximum(entries, 1)
        first += rows
        if k in draws and rows:
            E[first - 1, support] = redrawn_row(k, draws[k], seed=seed, columns=len(support))
    return E


def plain_uplink(senders: Sequence[int], subpackets: int = 1) -> Bytes:
    """`E` for uncoded sending: worker `senders[n]` sends the packets of unit `n`, once and uncoded."""
    units = np.argsort(senders, kind="stable").tolist()
    return np.eye(len(senders) * subpackets, dtype=np.uint8)[packets(units, subpackets)]


def coded_downlink(rows: int, columns: int, seed: int, last_row: int = 0, matrices: str = "random") -> Bytes:
    """`D`, of shape (rows, columns): every row combines all rows that the server has.

    If `last_row` is not 0, the last row is drawn anew, from a stream of random numbers with this number.
    """
    D = ENTRIES[matrices]("downlink", seed, rows, columns)
    if last_row and rows:
        D = np.vstack([D[:-1], random_matrix(f"downlink/last/{last_row}", seed, 1, columns)])
    return D


def combined_rows(
    D: Bytes, E: Bytes, blocks: Placement, uplink_rows: Sequence[int], subpackets: int
) -> Bytes:
    """`G = D·E`, computed worker by worker: a worker's rows are zero outside its stored columns."""
    # The transpose has the columns of a worker as rows, which are contiguous: products then need no copies.
    transposed = np.zeros((E.shape[1], len(D)), dtype=np.uint8)
    downlink = np.ascontiguousarray(D.T)
    first = 0
    for stored, rows in zip(blocks.stored, uplink_rows, strict=True):
        support, own = packets(stored, subpackets), slice(first, first + rows)
        if rows and support.size:
            transposed[support] ^= dense_product(E[own, support].T, downlink[own])
        first += rows
    return np.ascontiguousarray(transposed.T)


def unit_columns(matrix: Bytes) -> NDArray[np.intp] | None:
    """The column of the single 1 in each row, or None unless every row is a unit vector."""
    if not matrix.size or (np.count_nonzero(matrix, axis=1) != 1).any():
        return None
    columns = matrix.argmax(axis=1)
    return columns if (matrix[np.arange(len(matrix)), columns] == 1).all() else None
