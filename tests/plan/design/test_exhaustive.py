from __future__ import annotations

from fractions import Fraction

from asyncdmtl.plan.design.exhaustive import fastest_stores
from asyncdmtl.plan.design.initial import downlink_time
from asyncdmtl.plan.design.search import design_placement
from asyncdmtl.plan.design.swaps import Stores
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.rates.makespan import fastest_rates

SPEEDS = (Fraction(1, 4), Fraction(2), Fraction(5))


def uplink_time(stored: Stores) -> Fraction:
    names = [f"p{n}" for n in range(1 + max(n for store in stored for n in store))]
    placement = Placement({f"w{k}": [f"p{n}" for n in M] for k, M in enumerate(stored)}, names)
    return fastest_rates(placement, SPEEDS).time


def test_no_design_is_faster_than_the_best_of_all() -> None:
    for m, copies in (((4, 4, 4), 2), ((2, 3, 4), 1), ((4, 2, 3), 2)):
        stored = fastest_stores(m, 4, copies, SPEEDS, uplink_time)
        assert stored is not None
        sizes = tuple(map(len, stored))
        assert all(size <= most for size, most in zip(sizes, m, strict=True))
        assert all(sum(n in store for store in stored) == copies for n in range(4))
        time = uplink_time(stored) + downlink_time(sizes, SPEEDS, 4)
        design = design_placement(m, 4, copies=copies, speeds=SPEEDS)
        assert design.times is not None
        assert design.times.uplink + design.times.downlink == time


def test_too_many_placements_are_not_tried() -> None:
    assert fastest_stores([40] * 3, 80, 1, SPEEDS, uplink_time) is None
