from __future__ import annotations

import json
from fractions import Fraction

from asyncdmtl.plan.design.search import Design, LinkTimes, TradeOff
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.planner import make_plan
from asyncdmtl.report.design_report import report_design

# Worker a stores everything, and every worker stores p2.
PLACEMENT = Placement({"a": ["p0", "p1", "p2"], "b": ["p0", "p2"], "c": ["p2"]})
RATES = (Fraction(2), Fraction(1, 2), Fraction(0))
DESIGN = Design(PLACEMENT, RATES, Fraction(5, 2), Fraction(2), Fraction(2), Fraction(2))
ROW = TradeOff(2, 2, 6, Fraction(3, 2), Fraction(3, 2), Fraction(1), 3, 3, 3)


def test_a_design_in_plain_types() -> None:
    report = report_design(DESIGN, {"a": 3, "b": 2, "c": 2}, None, [ROW])
    assert json.loads(json.dumps(report)) == report
    assert report["placement"] == {"a": ["p0", "p1", "p2"], "b": ["p0", "p2"], "c": ["p2"]}
    assert report["partitions"] == ["p0", "p1", "p2"]
    assert report["capacities"] == {"a": 3, "b": 2, "c": 2}
    # Six stored copies of three partitions.
    assert report["copies"] == "2"
    assert report["uplink_loads"] == {"a": "2", "b": "1/2", "c": "0"}
    assert (report["uplink_load"], report["uplink_bound"]) == ("5/2", "2")
    assert (report["downlink_load"], report["downlink_bound"]) == ("2", "2")
    assert (report["gap"], report["optimal"]) == ("1/2", False)
    assert (report["speeds"], report["times"]) == (None, None)


def test_uncoded_exchange_sends_every_update_as_a_plan_of_it_does() -> None:
    uncoded = make_plan(DESIGN.placement, strategy="uncoded")
    assert uncoded.uplink_load == uncoded.downlink_load == 3
    assert report_design(DESIGN, {}, None, [])["uncoded_load"] == "3"


def test_times_and_speeds_are_told_where_time_was_minimised() -> None:
    times = LinkTimes(
        uplink=Fraction(3), uplink_bound=Fraction(3), downlink=Fraction(4), downlink_bound=Fraction(4)
    )
    design = Design(PLACEMENT, RATES, Fraction(5, 2), Fraction(2), Fraction(2), Fraction(2), times)
    report = report_design(design, {}, [Fraction(1), Fraction(1, 2), Fraction(10)], [])
    assert report["speeds"] == {"a": "1", "b": "1/2", "c": "10"}
    assert set(report["times"].values()) == {"3", "4"}
    assert report["optimal"]


def test_the_trade_off_has_counts_as_numbers_and_loads_as_fractions() -> None:
    (row,) = report_design(DESIGN, {}, None, [ROW])["trade_off"]
    assert row == {
        "copies": 2, "storage": 2, "computation": 6, "uplink_load": "3/2", "uplink_bound": "3/2",
        "downlink_load": "1", "uncoded_uplink": 3, "uncoded_downlink": 3, "unicast_downlink": 3,
    }  # fmt: skip
