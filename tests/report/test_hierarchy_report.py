from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

from asyncdmtl.plan.compare import compare
from asyncdmtl.plan.hierarchy.topology import Topology
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.placement_file import PlanRequest
from asyncdmtl.report.hierarchy_report import report_hierarchy

PLACEMENT = Placement({"a": ["x", "y"], "b": ["z"], "c": ["x"], "d": ["y", "z"]})
TOPOLOGY = Topology(PLACEMENT, {"r": ["a", "b"], "s": ["c", "d"]})


def report(network: Any = "unicast", strategy: str = "relay", **changes: Any) -> dict[str, Any]:
    known = {"prices": None, "speeds": None, "topology": TOPOLOGY, **changes}
    asked = PlanRequest(PLACEMENT, tuple("xyz"), (0, 1, 2), **known)
    made = report_hierarchy(asked, compare(PLACEMENT), network, strategy)
    assert json.loads(json.dumps(made)) == made
    return made


def test_levels_and_links_are_shown_beside_others() -> None:
    made = report()
    server, r, _ = made["levels"]
    # Both sites store everything.
    assert (server["relay"], server["uplink_load"], server["downlink_load"]) == (None, "0", "0")
    assert (server["uplink_bound"], server["downlink_bound"], server["uncoded_up"]) == ("0", "0", "3")
    assert (server["star_up"], server["star_down"]) == ("2", "6")
    assert (r["relay"], r["nodes"], r["uplink_load"], r["unicast_load"]) == ("r", ["a", "b"], "3", "3")
    links = {link["node"]: link for link in made["links"]}
    assert list(links) == ["r", "s", "a", "b", "c", "d"]
    assert (links["r"]["parent"], links["a"]["parent"]) == (None, "r")
    assert (links["r"]["star_down"], links["b"]["down"]) == ("3", "2")
    assert {link["star_down"] for link in report("multicast")["links"]} == {"2"}
    assert made["times"] is None


def test_the_least_time_decides_where_speeds_are_known() -> None:
    fast, slow = Fraction(100), Fraction(1)
    known = {"speeds": (fast,) * 4, "relay_speeds": {"r": slow, "s": slow}}
    made = report(strategy="auto", **known)
    assert (made["strategy"], made["times"]["relays"]) == ("relay", "1/25")
    assert Fraction(made["times"]["star"]) > 2
