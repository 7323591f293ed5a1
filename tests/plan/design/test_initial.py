from __future__ import annotations

import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.oracle import proper_subsets

from asyncdmtl.plan.design.initial import (
    cyclic_stores,
    downlink_time,
    even_stores,
    least_uplink_time,
    sizes_of_least_load,
    sizes_of_least_time,
)
from asyncdmtl.plan.placement import Placement

SPEED = st.one_of(st.integers(1, 3).map(Fraction), st.fractions(Fraction(1, 9), 40, max_denominator=9))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=7), st.data())
def test_sizes_raise_the_smallest_first(m: list[int], data: st.DataObject) -> None:
    total = data.draw(st.integers(0, sum(m)))
    sizes = sizes_of_least_load(m, total)
    assert sum(sizes) == total
    for size, most in zip(sizes, m, strict=True):
        # A worker that has at least two fewer than another one is full.
        assert size <= most
        assert size == most or size >= max(sizes) - 1


@settings(max_examples=200)
@given(st.lists(st.integers(0, 8), min_size=1, max_size=5), st.integers(1, 8), st.data())
def test_least_uplink_time_is_the_slowest_group(sizes: list[int], N: int, data: st.DataObject) -> None:
    K = len(sizes)
    b = data.draw(st.lists(SPEED, min_size=K, max_size=K))
    groups = (
        Fraction(N - sum(sizes[k] for k in S)) / sum(b[k] for k in range(K) if k not in S)
        for S in proper_subsets(K)
    )
    assert least_uplink_time(sizes, b, N) == max([Fraction(0), *groups])


@settings(max_examples=100)
@given(st.lists(st.integers(0, 4), min_size=2, max_size=3), st.data())
def test_one_share_makes_the_downlink_shortest(m: list[int], data: st.DataObject) -> None:
    N = max(1, *m)
    total = data.draw(st.integers(0, sum(m)))
    b = data.draw(st.lists(SPEED, min_size=len(m), max_size=len(m)))
    sizes = sizes_of_least_time(m, total, N, b, shares=1)
    assert sum(sizes) == total
    assert all(size <= most for size, most in zip(sizes, m, strict=True))

    def all_sizes(left: int, rest: list[int]) -> list[list[int]]:
        if not rest:
            return [] if left else [[]]
        return [[s, *more] for s in range(min(left, rest[0]) + 1) for more in all_sizes(left - s, rest[1:])]

    assert downlink_time(sizes, b, N) == min(downlink_time(each, b, N) for each in all_sizes(total, m))


def test_more_shares_leave_copies_for_the_uplink() -> None:
    """Copies at slow workers must not take copies that fast workers need for the uplink."""
    m, b = [30, 30, 30, 30], [Fraction(1), Fraction(1), Fraction(100), Fraction(100)]
    greedy, shared = (sizes_of_least_time(m, 60, 30, b, shares) for shares in (1, 8))
    assert greedy == (30, 30, 0, 0)

    def time(sizes: tuple[int, ...]) -> Fraction:
        return least_uplink_time(sizes, b, 30) + downlink_time(sizes, b, 30)

    assert time(shared) < time(greedy)


@given(st.integers(1, 12), st.data())
def test_even_stores(N: int, data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(0, N), min_size=1, max_size=6))
    order = data.draw(st.permutations(range(len(sizes))))
    stored = even_stores(sizes, N, random.Random(0), order)
    assert [len(store) for store in stored] == sizes
    held = [sum(n in store for store in stored) for n in range(N)]
    assert max(held) - min(held) <= 1


@pytest.mark.parametrize(("K", "N", "copies"), [(5, 20, 3), (1, 3, 1), (4, 4, 4)])
def test_equal_stores_are_cyclic(K: int, N: int, copies: int) -> None:
    sizes = [N * copies // K] * K
    assert cyclic_stores(sizes, N) == [set(store) for store in Placement.cyclic(K, N, copies).stored]


def test_cyclic_stores_of_unequal_sizes() -> None:
    stored = cyclic_stores([3, 2, 2, 3], 5)
    assert stored is not None
    assert [len(store) for store in stored] == [3, 2, 2, 3]
    assert all(sum(n in store for store in stored) == 2 for n in range(5))
    assert cyclic_stores([3, 3], 5) is None
    assert cyclic_stores([4, 2, 4], 5) is None
