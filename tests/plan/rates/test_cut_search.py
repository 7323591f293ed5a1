from __future__ import annotations

import random
from itertools import combinations

import numpy as np
import pytest

from asyncdmtl.plan.rates.cut_search import CutSearch


def demand(groups: list[list[frozenset[int]]], S: frozenset[int]) -> int:
    return sum(any(H <= S for H in group) for group in groups)


@pytest.mark.parametrize("seed", range(20))
def test_gains_are_the_differences_of_neighbours(seed: int) -> None:
    rng = random.Random(seed)
    K = rng.randint(2, 6)
    groups = [
        [frozenset(rng.sample(range(K), rng.randint(1, K))) for _ in range(rng.randint(1, 3))]
        for _ in range(rng.randint(1, 5))
    ]
    rates = np.array([rng.random() for _ in range(K)])
    search = CutSearch(K, groups, ())

    def excess(S: frozenset[int]) -> float:
        return demand(groups, S) - float(sum(rates[k] for k in S))

    for size in range(K + 1):
        for S in map(frozenset, combinations(range(K), size)):
            inside = np.array([k in S for k in range(K)])
            assert search.demand(inside) == demand(groups, S)
            gains = search._gains(inside, rates)
            assert gains == pytest.approx([excess(S ^ {k}) - excess(S) for k in range(K)])
    for S in search.violated(rates, [frozenset(), frozenset({0})]):
        assert excess(S) > 0
        assert all(excess(S ^ {k}) <= excess(S) + 1e-6 for k in range(K))


def test_some_demander_stays_outside() -> None:
    search = CutSearch(3, [[frozenset({0, 1, 2})], [frozenset({0, 1})]], [2])
    assert search.violated(np.zeros(3), [frozenset({0})]) == [frozenset({0, 1})]
    everyone = CutSearch(3, [[frozenset({0, 1, 2})], [frozenset({0, 1})]], [])
    assert everyone.violated(np.zeros(3), [frozenset({0, 1})]) == [frozenset({0, 1, 2})]
    assert search.violated(np.ones(3), [frozenset({0}), frozenset()]) == []
