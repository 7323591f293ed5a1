from __future__ import annotations

import hashlib

import numpy as np
from support.placements import HETEROGENEOUS

from asyncdmtl.field import gf256
from asyncdmtl.plan.codes import matrices


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
    E = matrices.plain_uplink([0, 1, 0, 0, 3, 3, 0, 1, 2, 4, 4, 4])
    assert [int(row.argmax()) for row in E] == [0, 2, 3, 6, 1, 7, 8, 4, 5, 9, 10, 11]
    assert (E.sum(axis=1) == 1).all()


def test_packets_of_vectors_lie_side_by_side() -> None:
    assert matrices.packets([2, 0], 2).tolist() == [4, 5, 0, 1]
    assert matrices.packets([], 3).tolist() == []


def test_the_product_of_the_matrices_is_computed_worker_by_worker() -> None:
    rows = (3, 0, 2, 1, 1, 0)
    E = matrices.coded_uplink(HETEROGENEOUS, rows, 2, 1)
    D = matrices.coded_downlink(4, 7, 1)
    G = matrices.combined_rows(D, E, HETEROGENEOUS, rows, 2)
    assert np.array_equal(G, gf256.matmul(D, E))


def test_the_last_row_can_be_drawn_again() -> None:
    first, again = matrices.coded_downlink(4, 7, 1), matrices.coded_downlink(4, 7, 1, 3)
    assert np.array_equal(first[:3], again[:3])
    assert not np.array_equal(first[3], again[3])


def test_unit_rows_are_recognised() -> None:
    columns = matrices.unit_columns(np.eye(3, dtype=np.uint8)[[2, 0]])
    assert columns is not None
    assert columns.tolist() == [2, 0]
    assert matrices.unit_columns(2 * np.eye(2, dtype=np.uint8)) is None
    assert matrices.unit_columns(np.ones((2, 2), dtype=np.uint8)) is None
