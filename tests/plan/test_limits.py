from __future__ import annotations

import pytest

from asyncdmtl.errors import PlanError
from asyncdmtl.plan import limits
from asyncdmtl.plan.limits import check_size
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.units import Units


def units(placement: Placement) -> Units:
    return Units.of(placement, range(len(placement.partitions)))


CYCLIC = Placement.cyclic(6, 6, 3)


def test_plans_of_usual_size_pass() -> None:
    check_size(units(CYCLIC), 5, [3] * 6, coded=True)
    check_size(units(CYCLIC), 1, [1] * 6, coded=False)


# With one packet a vector, E is 6 × 6, G is 3 × 6 and D is 3 × 6; in all 6·(6 + 3) + 3·6 = 72 entries.
# The work is 3²·6 for the elimination and 3³ for each of six workers: 54 + 162 = 216.
@pytest.mark.parametrize(
    ("name", "fits"),
    [("MOST_ENTRIES", 72), ("MOST_WORK", 216), ("MOST_DELIVERED", 18)],
)
def test_a_coded_plan_may_be_as_large_as_its_limits(
    name: str, fits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, name, fits)
    check_size(units(CYCLIC), 1, [1] * 6, coded=True)
    monkeypatch.setattr(limits, name, fits - 1)
    with pytest.raises(PlanError, match=r"6 rows and 6 columns \(1 packets per vector\), too many to check$"):
        check_size(units(CYCLIC), 1, [1] * 6, coded=True)


def test_a_plan_without_codes_may_be_larger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_ENTRIES", 1)
    monkeypatch.setattr(limits, "MOST_WORK", 1)
    check_size(units(CYCLIC), 1, [1] * 6, coded=False)
    monkeypatch.setattr(limits, "MOST_PLAIN_ENTRIES", 35)
    with pytest.raises(PlanError, match="too many to check"):
        check_size(units(CYCLIC), 1, [1] * 6, coded=False)


def test_where_packets_are_many_an_overhead_is_advised() -> None:
    large = units(Placement.cyclic(100, 1000, 4))
    with pytest.raises(PlanError, match=r"33 packets per vector\), too many to check: allow some max_ove"):
        check_size(large, 33, [330] * 100, coded=True)


def test_merged_units_make_a_plan_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = Placement(
        {"a": ["p0", "p1", "p2", "p3"], "b": ["p2", "p3", "p4", "p5"], "c": ["p4", "p5", "p0", "p1"]}
    )
    tasks = range(6)
    monkeypatch.setattr(limits, "MOST_ENTRIES", 3 * (3 + 1) + 1 * 3)
    check_size(Units.of(pairs, tasks, merged=2), 1, [1, 1, 1], coded=True)
    with pytest.raises(PlanError):
        check_size(Units.of(pairs, tasks), 1, [2, 2, 2], coded=True)
