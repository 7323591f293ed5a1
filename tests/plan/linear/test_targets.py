from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.linear_oracle import fractional_minimum, integer_minimum, linear_demands

from asyncdmtl.plan.linear import targets
from asyncdmtl.plan.linear.targets import Target, bit_set, cut_bound, members, packet_columns
from asyncdmtl.plan.placement import Placement


@st.composite
def small_targets(draw: st.DrawFn) -> tuple[Placement, list[list[int]]]:
    workers, partitions = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    holders = [draw(st.sets(st.integers(0, workers - 1), min_size=1)) for _ in range(partitions)]
    placement = Placement(
        {f"w{k}": [f"p{n}" for n, H in enumerate(holders) if k in H] for k in range(workers)},
        [f"p{n}" for n in range(partitions)],
    )
    row = st.lists(st.integers(-1, 2), min_size=partitions, max_size=partitions)
    return placement, draw(st.lists(row, min_size=1, max_size=3))


@settings(max_examples=60, deadline=None)
@given(small_targets())
def test_the_reduced_target_is_the_target(problem: tuple[Placement, list[list[int]]]) -> None:
    placement, matrix = problem
    target = Target(placement, np.array(matrix, dtype=float))
    assert np.allclose(target.lift @ (target.columns * target.scales), matrix)
    assert target.rank == np.linalg.matrix_rank(matrix)
    for n, line in enumerate(target.line_of):
        if line < 0:
            assert not target.columns[:, n].any()
        else:
            assert abs(target.lines[:, line] @ target.columns[:, n]) == pytest.approx(1.0)
    for line, H in target.needs:
        assert any(set(placement.holders[n]) == H for n, other in enumerate(target.line_of) if other == line)


@settings(max_examples=50, deadline=None)
@given(small_targets(), st.integers(0, 1), st.integers(1, 2))
def test_bounds_agree_with_brute_force(
    problem: tuple[Placement, list[list[int]]], silent: int, packets: int
) -> None:
    placement, matrix = problem
    K = len(placement.workers)
    if silent >= min(map(len, placement.holders)):
        return
    demands = linear_demands(placement.holders, K, matrix, silent)
    bound = cut_bound(Target(placement, np.array(matrix, dtype=float)), subpackets=packets, silent=silent)
    assert bound.complete
    assert bound.fractional == (fractional_minimum(K, demands) if demands else 0)
    assert bound.packets == integer_minimum(K, demands, packets)


def test_constraints_that_are_searched_for_give_the_same_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    placement = Placement.cyclic(7, 21, 3)
    target = Target(placement, rng.standard_normal((4, 21)))
    listed = cut_bound(target)
    monkeypatch.setattr(targets, "MAX_UNIONS", 1)
    searched = cut_bound(target)
    assert searched.packets <= listed.packets
    assert searched.fractional <= listed.fractional
    assert searched.packets == listed.packets
    monkeypatch.setattr(targets, "_MAX_INTEGER", 1)
    assert cut_bound(target).fractional <= listed.fractional


def test_a_zero_target_needs_nothing() -> None:
    bound = cut_bound(Target(Placement.cyclic(3, 3, 2), np.zeros((2, 3))))
    assert (bound.packets, bound.fractional, bound.demands) == (0, Fraction(0), {})


def test_bit_sets() -> None:
    assert list(members(bit_set([5, 0, 70]))) == [0, 5, 70]
    assert packet_columns([2, 0], 3).tolist() == [6, 7, 8, 0, 1, 2]
