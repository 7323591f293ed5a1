from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from asyncdmtl.multicast.sending import ReceptionCounts
from asyncdmtl.plan.linear.planning import make_linear_plan
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.planner import make_plan
from asyncdmtl.report.multicast_report import report_multicast, wire_load

PLACEMENT = Placement.cyclic(4, 4, 2)


def record(plan: Any, *listeners: str, **told: Any) -> Any:
    """The attributes of a run's record that the report uses; without listeners there was no group."""
    group = SimpleNamespace(listeners=listeners, **told) if listeners or told else None
    return SimpleNamespace(plan=plan, multicast=group)


def test_without_a_group_every_worker_has_its_own_copy() -> None:
    plan = make_plan(PLACEMENT)
    assert wire_load(record(plan)) == plan.wire_downlink_load == 8


@pytest.mark.parametrize("listening", [2, 3, 4])
def test_listeners_share_one_copy(listening: int) -> None:
    # Each of the four workers lacks two vectors, and any two combinations serve all of them.
    plan = make_plan(PLACEMENT)
    names = PLACEMENT.workers[:listening]
    assert wire_load(record(plan, *names)) == 2 + 2 * (4 - listening)


def test_uncoded_rows_are_shared_where_listeners_lack_the_same() -> None:
    plan = make_plan(PLACEMENT, "uncoded")
    # w0 stores p0 and p1, w1 stores p1 and p2: they lack p2, p3 and p3, p0.
    assert wire_load(record(plan, "w0", "w1")) == 3 + 4


def test_rows_of_a_linear_plan_never_go_to_a_group() -> None:
    plan = make_linear_plan(PLACEMENT, np.ones((1, 4)))
    assert wire_load(record(plan)) == Fraction(sum(plan.missing_ranks)) == 4


def test_what_went_to_the_group_in_plain_types() -> None:
    assert report_multicast(record(make_plan(PLACEMENT))) is None
    counts = ReceptionCounts()
    counts.sent, counts.lost, counts.lacked, counts.ranges = 100, 7, 5, 1
    told = {
        "group": "239.1.2.3:7701", "reason": "2 vectors to the group instead of 4 over TCP",
        "served_over_tcp": {"w2": "nothing was heard"}, "receptions": {"w0": counts},
        "sent_bytes": 5000, "repair_bytes": 40, "rate": 9e7,
    }  # fmt: skip
    report = report_multicast(record(make_plan(PLACEMENT), "w0", "w1", **told))
    assert report == {
        "group": "239.1.2.3:7701",
        "listeners": ["w0", "w1"],
        "reason": "2 vectors to the group instead of 4 over TCP",
        "served_over_tcp": {"w2": "nothing was heard"},
        "datagram_bytes": 5000,
        "repair_bytes": 40,
        "rate": 9e7,
        "workers": {"w0": {"sent": 100, "lost": 7, "repaired": 5, "ranges": 1}},
    }
