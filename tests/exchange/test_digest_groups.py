from __future__ import annotations

import gc
import weakref

from asyncdmtl.exchange.digest_groups import by_worker, group_table
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.planner import make_plan

PLACEMENT = Placement({"a": ["p0", "p1", "p2"], "b": ["p0", "p1"], "c": ["p2"]})


def test_every_value_is_told_by_one_holder() -> None:
    table = group_table(make_plan(PLACEMENT, "relay"))
    assert sorted(n for told in table.losses_told for n in told) == [0, 1, 2]
    assert sorted(g for told in table.told for g in told) == [0, 1]
    assert (table.groups, table.receivers) == (((0, 1), (2,)), ((2,), (1,)))
    assert table.received == ((), (1,), (0,))


def test_a_table_is_made_once_for_a_plan_and_is_gone_with_it() -> None:
    plan = make_plan(PLACEMENT, "relay")
    made = group_table(plan)
    assert group_table(plan) is made
    assert group_table(make_plan(PLACEMENT, "central")) is not made
    left = weakref.ref(made)
    del plan, made
    gc.collect()
    assert left() is None


def test_workers_are_listed_by_their_places() -> None:
    assert by_worker(3, [(0, 2), (2,), ()]) == ((0,), (), (0, 1))
