from __future__ import annotations

from fractions import Fraction
from itertools import combinations

import pytest

from asyncdmtl.errors import PlacementError, UsageError
from asyncdmtl.plan.delay.splits import Split, least_time, split_by_speeds, split_for_silent, uniform_split
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.rates.bounds import exclusive

CYCLIC = Placement.cyclic(4, 4, 3)
SPEEDS = [1, 2, 4, 4]


def test_a_uniform_split_waits_for_the_slowest() -> None:
    # R_CO is 4/3, so that each of four workers sends 1/3.
    assert uniform_split(CYCLIC, SPEEDS).times == tuple(Fraction(1, 3 * speed) for speed in SPEEDS)


def test_a_split_by_speeds_is_shorter_and_no_shorter_than_the_ideal() -> None:
    times = split_by_speeds(CYCLIC, SPEEDS).times
    assert least_time(CYCLIC, SPEEDS) <= max(times) < max(uniform_split(CYCLIC, SPEEDS).times)
    assert least_time(CYCLIC, SPEEDS) == Fraction(4, 3) / 11


@pytest.mark.parametrize("silent", [0, 1, 2])
def test_a_split_for_silent_workers_is_the_largest_bound_of_a_cut(silent: int) -> None:
    # The oracle looks at every cut and every set of responders.
    bounds = [
        exclusive(CYCLIC, cut) / Fraction(total)
        for responders in combinations(range(4), 4 - silent)
        for size in (1, 2, 3)
        for cut in combinations(range(4), size)
        if (total := sum(SPEEDS[k] for k in cut if k in responders))
    ]
    split = split_for_silent(CYCLIC, SPEEDS, silent)
    assert split.times == (max(bounds),) * 4
    assert split.needed == 4 - silent


def test_workers_that_send_nothing_are_not_waited_for() -> None:
    assert Split((Fraction(0), Fraction(1), Fraction(2)), silent=1).needed == 1


def test_bad_input_is_named() -> None:
    with pytest.raises(PlacementError, match="would be lost"):
        split_for_silent(CYCLIC, SPEEDS, 3)
    with pytest.raises(UsageError, match="speeds must be positive"):
        split_by_speeds(CYCLIC, [0, 1, 1, 1])
    with pytest.raises(UsageError, match="workers must be at least 2"):
        least_time(Placement({"w0": ["a"]}), [1])
