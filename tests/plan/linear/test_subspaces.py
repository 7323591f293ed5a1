from __future__ import annotations

import numpy as np
import pytest

from asyncdmtl.errors import CodingError
from asyncdmtl.plan.linear.pieces import assign_everything, candidate_flats
from asyncdmtl.plan.linear.subspaces import (
    draw_subspaces,
    find_pieces,
    repair,
    total,
    unreached,
    uplink_from_subspaces,
)
from asyncdmtl.plan.linear.targets import Target, cut_bound
from asyncdmtl.plan.placement import Placement


def target_of(placement: Placement, combinations: int) -> Target:
    shape = (combinations, len(placement.partitions))
    return Target(placement, np.random.default_rng(1).standard_normal(shape))


@pytest.mark.parametrize("packets", [1, 2])
@pytest.mark.parametrize("placement", [Placement.cyclic(5, 10, 3), Placement.cyclic(3, 6, 2)], ids=repr)
def test_pieces_that_are_found_reach_every_need(placement: Placement, packets: int) -> None:
    target, rng = target_of(placement, 2), np.random.default_rng(0)
    flats, bound = candidate_flats(target), cut_bound(target, subpackets=packets)
    found = find_pieces(target, flats, bound, rng, subpackets=packets)
    assert bound.packets <= total(found) <= total(assign_everything(target, subpackets=packets))
    U = draw_subspaces(target, flats, found, rng, subpackets=packets)
    assert list(unreached(target, U, packets)) == []
    W, condition = uplink_from_subspaces(target, U, packets)
    assert [len(rows) for rows in W] == [basis.shape[1] for basis in U]
    assert condition >= 1
    for k, rows in enumerate(W):
        foreign = [n * packets + p for n in placement.missing(k) for p in range(packets)]
        assert not rows[:, foreign].any()


def test_needs_that_pieces_miss_are_mended() -> None:
    target, rng = target_of(Placement.cyclic(4, 8, 2), 2), np.random.default_rng(0)
    flats = candidate_flats(target)
    U = draw_subspaces(target, flats, {}, rng, subpackets=1)
    assert set(unreached(target, U, 1)) == set(target.needs)
    with pytest.raises(CodingError, match="do not reach"):
        uplink_from_subspaces(target, U, 1)
    mended = repair(target, flats, {}, rng, subpackets=1)
    U = draw_subspaces(target, flats, mended, rng, subpackets=1)
    assert list(unreached(target, U, 1)) == []
