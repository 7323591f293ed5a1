from __future__ import annotations

from fractions import Fraction
from itertools import product

import pytest

from asyncdmtl.errors import UsageError
from asyncdmtl.plan.design.additions import best_additions
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.rates.bounds import downlink_bound
from asyncdmtl.plan.rates.optimum import uplink_optimum

SITES = Placement({"a": ["p", "q"], "b": ["q", "r"], "c": ["s"]})


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
    assert (added[-1].uplink_load, added[-1].downlink_load) == (Fraction(0), 0)
    loads = [a.uplink_load + a.downlink_load for a in added]
    assert loads == sorted(loads, reverse=True)


def test_a_count_is_checked() -> None:
    with pytest.raises(UsageError, match="count"):
        best_additions(SITES, 0)
