"""Uplink and downlink matrices over GF(2^8), and their check for every worker.

Entries are random on the support that the placement allows (docs/theory.md, section 4): whenever the
loads meet the cut-set bounds, generic entries let every worker decode, and a failed check costs a retry
with the next seed. Entries come from SHAKE-256, so a seed means the same matrix on every machine and
with every version of every library.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arrays import Bytes
from asyncdmtl.field import linalg
from asyncdmtl.plan.placement import Placement


def packets(indices: Sequence[int], subpackets: int) -> NDArray[np.intp]:
    """Columns of the packets of the vectors `indices`: vector `n` has the packets `n·P … n·P + P − 1`."""
    first = np.asarray(indices, dtype=np.intp)[:, None] * subpackets
    return (first + np.arange(subpackets, dtype=np.intp)).reshape(-1)


@dataclass(frozen=True)
class Delivery:
    """The downlink of one worker.

    Attributes
    ----------
    rows : tuple of int
        The rows of the downlink matrix that the worker is sent, in packets.
    wanted : tuple of int
        The vectors that it decodes from them.
    known : tuple of int
        The vectors that it has already and uses as side information.
    """

    rows: tuple[int, ...]
    wanted: tuple[int, ...]
    known: tuple[int, ...]


def random_matrix(label: str, seed: int, rows: int, columns: int) -> Bytes:
    """A (rows, columns) uint8 matrix of uniform field elements that `label` and `seed` determine."""
    stream = hashlib.shake_256(f"asyncdmtl/{label}/{seed}/{rows}x{columns}".encode())
    return np.frombuffer(stream.digest(rows * columns), dtype=np.uint8).reshape(rows, columns)


def coded_uplink(placement: Placement, uplink_rows: Sequence[int], subpackets: int, seed: int) -> Bytes:
    """`E`, of shape (Σ uplink_rows, N·P): random where a worker stores the column, zero elsewhere.

    Row blocks follow the order of the workers; worker `k` owns `uplink_rows[k]` of them.
    """
    columns = len(placement.partitions) * subpackets
    E = np.zeros((sum(uplink_rows), columns), dtype=np.uint8)
    first = 0
    for k, rows in enumerate(uplink_rows):
        support = packets(placement.stored[k], subpackets)
        E[first : first + rows, support] = random_matrix(f"uplink/{k}", seed, rows, len(support))
        first += rows
    return E


def plain_uplink(placement: Placement, senders: Sequence[int]) -> Bytes:
    """`E` for uncoded sending: partition `n` goes up once, as it is, from worker `senders[n]`."""
    order = [n for k in range(len(placement.workers)) for n, sender in enumerate(senders) if sender == k]
    return np.eye(len(senders), dtype=np.uint8)[order]


def coded_downlink(rows: int, columns: int, seed: int) -> Bytes:
    """`D`, of shape (rows, columns): every row combines all rows that the server has."""
    return random_matrix("downlink", seed, rows, columns)


def undecodable(G: Bytes, deliveries: Sequence[Delivery], subpackets: int) -> list[int]:
    """The workers that cannot decode what they want from the rows they are sent; exact.

    Worker `k` decodes iff the wanted columns of its rows of `G` are linearly independent and the columns
    that it neither wants nor knows are zero (docs/theory.md, section 4).
    """
    failing = []
    for k, delivery in enumerate(deliveries):
        received = G[list(delivery.rows)]
        wanted = received[:, packets(delivery.wanted, subpackets)]
        foreign = np.ones(G.shape[1], dtype=bool)
        foreign[packets(delivery.wanted + delivery.known, subpackets)] = False
        if received[:, foreign].any() or linalg.rank(wanted) < wanted.shape[1]:
            failing.append(k)
    return failing
