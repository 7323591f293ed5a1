from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest

from asyncdmtl.arrays import Floats
from asyncdmtl.plan.linear.matrices import FAIR_CONDITION, solve_decoding
from asyncdmtl.plan.linear.targets import Target
from asyncdmtl.plan.linear.uplink import (
    Uplink,
    WantedTarget,
    cheapest_uplink,
    fewest_subpackets,
    find_uplink,
)
from asyncdmtl.plan.placement import Placement

GENERIC = np.random.default_rng(5).standard_normal((3, 12))
FANO = [(0, 1, 2), (0, 3, 4), (0, 5, 6), (1, 3, 5), (1, 4, 6), (2, 3, 6), (2, 4, 5)]


def pairs(workers: int, copies: int) -> list[tuple[int, ...]]:
    return [H for H in combinations(range(workers), 2) for _ in range(copies)]


def wanted(holders: Sequence[tuple[int, ...]], matrix: Floats, silent: int = 0) -> WantedTarget:
    K = 1 + max(k for H in holders for k in H)
    stored = {f"w{k}": [f"p{n}" for n, H in enumerate(holders) if k in H] for k in range(K)}
    placement = Placement(stored, [f"p{n}" for n in range(len(holders))])
    responders = list(combinations(range(K), K - silent))
    return WantedTarget(matrix, Target(placement, matrix), silent, 0, responders)


def check(asked: WantedTarget, uplink: Uplink) -> None:
    for responders in asked.responders:
        chosen = [uplink.matrices[k] for k in responders]
        _, condition = solve_decoding(asked.reduced.columns, chosen, uplink.subpackets)
        assert condition <= uplink.condition <= FAIR_CONDITION
    assert uplink.load >= Fraction(uplink.bound.packets, uplink.subpackets) >= uplink.bound.fractional


@pytest.mark.parametrize(
    ("holders", "matrix", "silent", "load"),
    [
        (pairs(3, 2), GENERIC[:, :6], 0, 3),
        (pairs(4, 2), GENERIC, 0, 5),
        (FANO, np.vander(np.arange(1.0, 8.0), 4, increasing=True).T, 0, 5),
        (pairs(4, 1), GENERIC[:2, :6], 1, 6),
    ],
    ids=["3 workers", "4 workers", "Fano plane", "one silent"],
)
def test_intersections_of_spans_are_found(
    holders: list[tuple[int, ...]], matrix: Floats, silent: int, load: int
) -> None:
    asked = wanted(holders, matrix, silent)
    uplink = find_uplink(asked, 1)
    check(asked, uplink)
    assert uplink.load == load


@pytest.mark.parametrize(("silent", "load"), [(0, Fraction(4, 3)), (1, Fraction(2))])
def test_packets_are_chosen_where_they_lower_the_load(silent: int, load: Fraction) -> None:
    asked = wanted(Placement.cyclic(4, 4, 3).holders, np.ones((1, 4)), silent)
    uplink = cheapest_uplink(asked)
    check(asked, uplink)
    assert uplink.load == uplink.bound.fractional == load


def test_the_fewest_packets_within_the_allowed_overhead() -> None:
    asked = wanted(Placement.cyclic(7, 7, 4).holders, np.ones((1, 7)))
    assert fewest_subpackets(asked, Fraction(0)) == 4
    assert fewest_subpackets(asked, Fraction(1, 7)) == 1


@pytest.mark.parametrize("silent", [0, 1])
def test_random_targets_meet_the_fractional_bound(silent: int) -> None:
    rng = np.random.default_rng(silent)
    met = 0
    for _ in range(12):
        K, N, C = int(rng.integers(3, 6)), int(rng.integers(2, 7)), int(rng.integers(1, 4))
        holders = [
            tuple(sorted(rng.choice(K, rng.integers(silent + 1, K), replace=False).tolist()))
            for _ in range(N)
        ]
        holders.append(tuple(range(K)))
        asked = wanted(holders, rng.standard_normal((C, N + 1)), silent)
        uplink = cheapest_uplink(asked)
        check(asked, uplink)
        met += uplink.load == uplink.bound.fractional
    assert met >= 11
