from __future__ import annotations

import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from support.oracle import (
    EDGES,
    feasible,
    least_uplink_load,
    placement_of,
    small_placements,
)
from support.placements import LARGE

from asyncdmtl.errors import UsageError
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.rates.bounds import certificate_value, violated_cut
from asyncdmtl.plan.rates.optimum import UplinkOptimum, smallest_subpackets, uplink_optimum


def check_optimum(placement: Placement) -> None:
    optimum = uplink_optimum(placement)
    load, attained = least_uplink_load(placement)
    assert optimum.load == load == sum(optimum.rates)
    assert min(optimum.rates) >= 0
    assert feasible(placement, optimum.rates)
    assert certificate_value(placement, optimum.certificate) == load
    if attained:
        finest = max(attained, key=len)
        assert optimum.certificate == tuple(sorted(tuple(sorted(block)) for block in finest))
        assert optimum.denominator == len(finest) - 1
        # The certificate is finest: every other partition that attains the bound merges blocks of it.
        for blocks in attained:
            assert all(any(set(fine) <= set(block) for block in blocks) for fine in finest)


@pytest.mark.parametrize("placement", EDGES, ids=repr)
def test_edges(placement: Placement) -> None:
    check_optimum(placement)


def test_one_worker_sends_nothing() -> None:
    alone = placement_of([[0], [0]], 1)
    assert uplink_optimum(alone) == UplinkOptimum(Fraction(0), ((0,),), (Fraction(0),))
    assert uplink_optimum(alone).denominator == 1


def test_cyclic_placement_of_six() -> None:
    placement = Placement.cyclic(6, 6, 3)
    optimum = uplink_optimum(placement)
    assert optimum.load == Fraction(18, 5)
    assert optimum.rates == (Fraction(3, 5),) * 6
    assert optimum.certificate == tuple((k,) for k in range(6))
    assert optimum.denominator == smallest_subpackets(optimum) == 5


def test_singletons_are_not_always_the_best_certificate() -> None:
    """For two groups with one partition in common, the best certificate has the two groups as blocks."""
    placement = placement_of([[0, 1, 2], [0, 1, 2], [3, 4, 5], [3, 4, 5], [2, 3]], 6)
    assert certificate_value(placement, [[k] for k in range(6)]) == Fraction(16, 5)
    optimum = uplink_optimum(placement)
    assert optimum.load == 4
    assert optimum.certificate == ((0, 1, 2), (3, 4, 5))


@settings(max_examples=200, deadline=None)
@given(small_placements())
def test_optimum_agrees_with_brute_force(placement: Placement) -> None:
    check_optimum(placement)


def test_optimum_agrees_with_brute_force_for_seven_workers() -> None:
    rng = random.Random(7)
    for _ in range(40):
        holders = [rng.sample(range(7), rng.randint(1, rng.choice([3, 5, 7]))) for _ in range(12)]
        check_optimum(placement_of(holders, 7))


@pytest.mark.parametrize("placement", LARGE, ids=repr)
def test_large_placements_prove_themselves(placement: Placement) -> None:
    optimum = uplink_optimum(placement)
    assert certificate_value(placement, optimum.certificate) == optimum.load == sum(optimum.rates)
    assert violated_cut(placement, optimum.rates) is None


@pytest.mark.parametrize(
    ("load", "overhead", "subpackets"),
    [
        (Fraction(0), 0, 1),
        (Fraction(4), 0, 1),
        (Fraction(18, 5), 0, 5),
        (Fraction(18, 5), Fraction(1, 9), 1),
        (Fraction(18, 5), Fraction(1, 10), 3),
        (Fraction(18, 5), Fraction(1, 100), 5),
        (Fraction(1, 3), Fraction(1, 2), 2),
        (Fraction(1, 3), 2, 1),
    ],
)
def test_smallest_subpackets(load: Fraction, overhead: Fraction | int, subpackets: int) -> None:
    assert smallest_subpackets(UplinkOptimum(load, ((0,),), (load,)), overhead) == subpackets


def test_a_negative_overhead_is_refused() -> None:
    with pytest.raises(UsageError, match="negative"):
        smallest_subpackets(uplink_optimum(Placement.cyclic(3, 3, 2)), Fraction(-1, 2))
