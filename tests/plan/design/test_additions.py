from __future__ import annotations

from fractions import Fraction
from itertools import product

import pytest

from asyncdmtl.errors import UsageError
from asyncdmtl.plan.design.additions import RoundLoads, best_additions
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.planner import make_plan
from asyncdmtl.plan.rates.bounds import downlink_bound
from asyncdmtl.plan.rates.optimum import uplink_optimum

SITES = Placement({"a": ["p", "q"], "b": ["q", "r"], "c": ["s"]})


OWN = {"a": "own", "b": "own", "c": "none"}


def load(placement: Placement) -> Fraction:
    return uplink_optimum(placement).load + downlink_bound(placement)


def test_the_first_addition_is_the_best_of_all() -> None:
    more, (added,) = best_additions(SITES, 1)
    assert set(more.as_dict()[added.worker]) == {*SITES.as_dict()[added.worker], added.partition}
    assert load(more) == added.uplink_load + added.downlink_load
    others = []
    for worker, partition in product(SITES.workers, SITES.partitions):
        stored = SITES.as_dict()
        if partition not in stored[worker]:
            stored[worker].append(partition)
            others.append(load(Placement(stored, SITES.partitions)))
    assert load(more) == min(others) < load(SITES)


def test_additions_end_where_every_worker_stores_everything() -> None:
    more, added = best_additions(SITES, 100)
    assert len(added) == 3 * 4 - 5
    assert all(len(stored) == 4 for stored in more.stored)
    assert added[-1].uplink_load == added[-1].downlink_load == 0
    loads = [a.uplink_load + a.downlink_load for a in added]
    assert loads == sorted(loads, reverse=True)


def test_a_count_is_checked() -> None:
    with pytest.raises(UsageError, match="count"):
        best_additions(SITES, 0)


def total(loads: RoundLoads, placement: Placement) -> Fraction:
    return sum(loads.of(placement), Fraction(0))


@pytest.mark.parametrize(
    "loads",
    [
        RoundLoads(SITES, [0, 0, 1, 1]),
        RoundLoads(SITES, wants={"c": "none"}),
        RoundLoads(SITES, [0, 0, 1, 1], prices=[1, 5, 2]),
        RoundLoads(SITES, speeds=[1, Fraction(1, 2), 4]),
        RoundLoads(SITES, wants={"c": "none"}, prices=[1, 5, 2]),
        RoundLoads(SITES, wants={"c": "none"}, speeds=[1, Fraction(1, 2), 4]),
        RoundLoads(SITES, [0, 0, 1, 1], wants=OWN),
        RoundLoads(SITES, [0, 0, 1, 1], wants=OWN, prices=[1, 5, 2]),
    ],
    ids=[
        "tasks",
        "wants",
        "prices",
        "speeds",
        "wants and prices",
        "wants and speeds",
        "own",
        "own and prices",
    ],
)
def test_every_quantity_is_lowered_most(loads: RoundLoads) -> None:
    more, (added,) = best_additions(SITES, 1, loads)
    tried = []
    for worker, partition in product(SITES.workers, SITES.partitions):
        stored = SITES.as_dict()
        if partition not in stored[worker]:
            stored[worker].append(partition)
            tried.append(total(loads, Placement(stored, SITES.partitions)))
    assert total(loads, more) == added.uplink_load + added.downlink_load == min(tried)


def test_quantities_are_those_of_plans() -> None:
    tasks = [0, 0, 1, 1]
    speeds: list[Fraction | int] = [1, Fraction(1, 2), 4]
    plan = make_plan(SITES, tasks=tasks, wants={"a": "none"})
    assert RoundLoads(SITES, tasks, wants={"a": "none"}).of(SITES) == (plan.uplink_load, plan.downlink_load)
    fast = make_plan(SITES, tasks=tasks, speeds=speeds)
    assert fast.objective is not None
    assert RoundLoads(SITES, tasks, speeds=speeds).of(SITES)[0] == fast.objective.bound
    assert RoundLoads(SITES, tasks).strategy == "relay"
    own = RoundLoads(SITES, tasks, wants=OWN)
    plan = make_plan(SITES, "personal", tasks=tasks, wants=OWN)
    assert (own.strategy, own.of(SITES)) == ("personal", (plan.uplink_load, plan.downlink_load))
    prices: list[Fraction | int] = [3, 5, 2]
    plan = make_plan(SITES, "personal", tasks=tasks, wants=OWN, prices=prices)
    assert plan.objective is not None
    # Worker a is sent the model of task 0, and b those of both.
    assert RoundLoads(SITES, tasks, wants=OWN, prices=prices).of(SITES) == (
        plan.objective.value,
        Fraction(3 + 2 * 5),
    )
    with pytest.raises(UsageError, match="speeds are for the strategy relay"):
        RoundLoads(SITES, wants=OWN, speeds=speeds)
    with pytest.raises(UsageError, match="prices and speeds"):
        RoundLoads(SITES, prices=[1, 1, 1], speeds=[1, 1, 1])
