from __future__ import annotations

import hashlib

import numpy as np
from support.placements import HETEROGENEOUS

from asyncdmtl.plan.codes import matrices
from asyncdmtl.plan.codes.matrices import Delivery


def test_entries_come_from_shake_256() -> None:
    stream = hashlib.shake_256(b"asyncdmtl/uplink/3/7/2x5").digest(10)
    assert matrices.random_matrix("uplink/3", 7, 2, 5).tobytes() == stream
    assert matrices.coded_downlink(2, 5, 7).shape == (2, 5)


def test_rows_are_zero_outside_a_workers_stored_columns() -> None:
    rows = (3, 0, 2, 1, 1, 0)
    E = matrices.coded_uplink(HETEROGENEOUS, rows, 2, 1)
    assert E.shape == (7, 24)
    first = 0
    for k, count in enumerate(rows):
        block = E[first : first + count]
        assert not block[:, matrices.packets(HETEROGENEOUS.missing(k), 2)].any()
        assert count == 0 or block.any()
        first += count


def test_uncoded_rows_follow_the_senders() -> None:
    E = matrices.plain_uplink(HETEROGENEOUS, [0, 1, 0, 0, 3, 3, 0, 1, 2, 4, 4, 4])
    assert [int(row.argmax()) for row in E] == [0, 2, 3, 6, 1, 7, 8, 4, 5, 9, 10, 11]
    assert (E.sum(axis=1) == 1).all()


def test_packets_of_vectors_lie_side_by_side() -> None:
    assert matrices.packets([2, 0], 2).tolist() == [4, 5, 0, 1]
    assert matrices.packets([], 3).tolist() == []


def test_workers_that_cannot_decode_are_named() -> None:
    G = np.array([[1, 2, 0], [2, 4, 0]], dtype=np.uint8)
    both, one = Delivery((0, 1), (0, 1), ()), Delivery((0,), (0,), (1,))
    assert matrices.undecodable(G, [both, one], 1) == [0]
    unknown = Delivery((0,), (0,), (2,))
    assert matrices.undecodable(G, [one, unknown], 1) == [1]
