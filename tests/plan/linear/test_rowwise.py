from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from asyncdmtl.plan.linear.matrices import solve_decoding
from asyncdmtl.plan.linear.planning import make_linear_plan
from asyncdmtl.plan.linear.rowwise import independent_rows, uplink_row_by_row
from asyncdmtl.plan.linear.targets import Target
from asyncdmtl.plan.placement import Placement


def test_dependent_rows_are_left_out() -> None:
    A = np.array([[1.0, 2, 3], [2, 4, 6], [0, 0, 0], [1e-9, 0, 0], [1, 2, 4]])
    assert independent_rows(A) == [0, 3, 4]


@pytest.mark.parametrize(("silent", "packets"), [(0, 1), (0, 2), (1, 1), (1, 2)])
def test_rows_one_by_one_decode_the_whole_target(silent: int, packets: int) -> None:
    placement = Placement.cyclic(5, 10, 3)
    A = np.random.default_rng(0).standard_normal((3, 10)) * 10.0 ** np.array([[-3.0], [0.0], [3.0]])
    target = Target(placement, A)
    responders = list(combinations(range(5), 5 - silent))
    found = uplink_row_by_row(
        placement, target, A, responders, np.random.default_rng(1), subpackets=packets, silent=silent
    )
    assert found is not None
    W, condition = found
    assert condition >= 1
    for chosen in responders:
        solve_decoding(target.columns, [W[k] for k in chosen], packets)
    for k, rows in enumerate(W):
        foreign = [n * packets + p for n in placement.missing(k) for p in range(packets)]
        assert np.abs(rows[:, foreign]).max(initial=0.0) < 1e-12


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("silent", [0, 1])
def test_no_plan_needs_more_than_its_rows_one_by_one(seed: int, silent: int) -> None:
    rng = np.random.default_rng(seed)
    placement = Placement.cyclic(5, 9, int(rng.integers(2, 4)))
    A = rng.standard_normal((2, 9)) * (rng.random((2, 9)) < 0.6)
    whole = make_linear_plan(placement, A, silent=silent)
    single = [make_linear_plan(placement, row[None], silent=silent).uplink_load for row in A]
    assert whole.uplink_load <= sum(single)
