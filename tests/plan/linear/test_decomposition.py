from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from asyncdmtl.plan.linear.decomposition import Decomposer
from asyncdmtl.plan.linear.matrices import solve_decoding
from asyncdmtl.plan.linear.targets import Target, cut_bound
from asyncdmtl.plan.placement import Placement


def held_by(workers: int, holders: list[tuple[int, ...]]) -> Placement:
    stored = {f"w{k}": [f"p{n}" for n, H in enumerate(holders) if k in H] for k in range(workers)}
    return Placement(stored, [f"p{n}" for n in range(len(holders))])


def decomposer(placement: Placement, rank: int, packets: int = 1, silent: int = 0) -> Decomposer:
    target = Target(placement, np.random.default_rng(0).standard_normal((rank, len(placement.partitions))))
    K = len(placement.workers)
    bound = cut_bound(target, subpackets=packets, silent=silent)
    return Decomposer(target, bound, list(combinations(range(K), K - silent)), packets, silent)


@pytest.mark.parametrize(("silent", "packets", "total"), [(0, 1, 3), (0, 2, 6), (1, 1, 6)])
def test_every_set_of_responders_determines_the_target(silent: int, packets: int, total: int) -> None:
    search = decomposer(held_by(3, [H for H in combinations(range(3), 2) for _ in range(2)]), 3 - silent)
    if silent or packets > 1:
        search = decomposer(search.target.placement, 3 - silent, packets, silent)
    W = next(search.matrices(total, np.random.default_rng(1)))
    assert sum(map(len, W)) == total
    for responders in search.responders:
        solve_decoding(search.target.columns, [W[k] for k in responders], packets)
    for k, rows in enumerate(W):
        foreign = [n * packets + p for n in search.target.placement.missing(k) for p in range(packets)]
        assert not rows[:, foreign].any()


def test_rates_meet_every_cut_and_the_most_promising_come_first() -> None:
    search = decomposer(held_by(4, [H for H in combinations(range(4), 2) for _ in range(2)]), 3)
    for rates in search.rate_vectors(5):
        assert sum(rates) == 5
        assert all(sum(rates[k] for k in S) >= rank for S, rank in search.bound.demands.items())
    assert search.rate_vectors(3) == []
    assert search.rate_vectors(4) == [(1, 1, 1, 1)]


def test_planes_without_a_common_line_have_no_decomposition() -> None:
    # Every worker would have to send the intersection of three generic planes.
    search = decomposer(held_by(4, [H for H in combinations(range(4), 2) for _ in range(2)]), 3)
    assert list(search.matrices(4, np.random.default_rng(0))) == []


def test_the_search_ends_when_its_effort_is_spent() -> None:
    search = decomposer(held_by(3, [(0, 1), (1, 2), (0, 2)]), 2)
    assert list(search.matrices(2, np.random.default_rng(0), 10)) == []
    assert list(search.matrices(2, np.random.default_rng(0)))
    assert list(search.matrices(0, np.random.default_rng(0))) == []


def test_large_problems_are_left_to_other_ways() -> None:
    search = decomposer(Placement.cyclic(30, 240, 10), 5)
    assert search.rate_vectors(20) == []
    assert list(search.matrices(20, np.random.default_rng(0))) == []
