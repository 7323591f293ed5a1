from __future__ import annotations

import random

import numpy as np
import pytest
from support.placements import HETEROGENEOUS, HOMOGENEOUS, random_placement

from asyncdmtl.field import gf256, linalg
from asyncdmtl.plan.codes.decodability import later_row_for, null_space_bases, undecodable
from asyncdmtl.plan.codes.matrices import ColumnDelivery
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.planner import make_plan


def by_rank(G: np.ndarray, deliveries: list[ColumnDelivery]) -> list[int]:
    """The workers that cannot decode, by the definition: their wanted columns are dependent."""
    ranks = [linalg.rank(G[list(d.rows)][:, d.wanted]) for d in deliveries]
    return [k for k, rank in enumerate(ranks) if rank < len(deliveries[k].wanted)]


@pytest.mark.parametrize("seed", range(30))
def test_the_check_agrees_with_the_definition(seed: int) -> None:
    rng, numbers = random.Random(seed), np.random.default_rng(seed)
    plan = make_plan(random_placement(rng))
    deliveries = list(map(plan.in_columns, plan.deliveries))
    # Few values and dependent rows make many draws singular.
    G = numbers.integers(0, rng.choice([2, 3, 256]), plan.combined.shape, dtype=np.uint8)
    if len(G) > 2 and rng.random() < 0.5:
        G[-1] = G[0] ^ G[1]
    assert undecodable(plan.combined, deliveries) == []
    assert undecodable(G, deliveries) == by_rank(G, deliveries)


def test_a_worker_that_neither_wants_nor_knows_a_packet_cannot_use_its_rows() -> None:
    G = np.array([[1, 2, 0], [2, 4, 0]], dtype=np.uint8)
    both = ColumnDelivery((0, 1), np.array([0, 1]), np.arange(0))
    one = ColumnDelivery((0,), np.array([0]), np.array([1]))
    unknown = ColumnDelivery((0,), np.array([0]), np.array([2]))
    assert undecodable(G, [both, one, unknown]) == [0, 2]


@pytest.mark.parametrize("placement", [HOMOGENEOUS, HETEROGENEOUS, Placement.cyclic(4, 4, 4)], ids=repr)
def test_plain_rows_are_compared_not_eliminated(placement: Placement) -> None:
    plan = make_plan(placement, "uncoded")
    deliveries = list(map(plan.in_columns, plan.deliveries))
    assert undecodable(plan.combined, deliveries) == []
    shifted = np.roll(plan.combined, 1, axis=1)
    wanting = [k for k, delivery in enumerate(deliveries) if len(delivery.wanted) not in (0, len(shifted))]
    assert undecodable(shifted, deliveries) == wanting


def test_null_spaces_of_more_and_more_rows() -> None:
    G = np.random.default_rng(0).integers(0, 256, (8, 12), dtype=np.uint8)
    found = null_space_bases(G, [5, 2, 5, 8])
    assert list(found) == [2, 5, 8]
    for count, basis in found.items():
        assert basis.shape == (12, 12 - count)
        assert linalg.rank(basis) == 12 - count
        assert not gf256.matmul(G[:count], basis).any()


def test_a_later_row_replaces_one_that_tells_nothing_new() -> None:
    rng = np.random.default_rng(1)
    G = rng.integers(0, 256, (6, 6), dtype=np.uint8)
    known, wanted = np.array([4, 5]), np.arange(4)
    G[3, wanted] = G[2, wanted]
    G[4, wanted] = G[1, wanted]
    basis = null_space_bases(G, [3])[3]
    assert later_row_for(G, basis, known, 4) == 5
    assert linalg.rank(G[[0, 1, 2, 5]][:, wanted]) == 4
    assert later_row_for(G[:5], basis, known, 4) is None
