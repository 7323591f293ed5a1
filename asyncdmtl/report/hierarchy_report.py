"""The part of the report of `asyncdmtl plan` about relays: loads of levels and links beside a star's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from asyncdmtl.plan.compare import Candidate, Network
from asyncdmtl.plan.hierarchy.levels import (
    Hierarchy,
    LinkLoads,
    compare_hierarchies,
    round_time,
    star_links,
)
from asyncdmtl.plan.hierarchy.topology import Topology
from asyncdmtl.plan.placement_file import PlanRequest

HierarchyReport = dict[str, Any]


def report_hierarchy(
    request: PlanRequest,
    star: Sequence[Candidate],
    network: Network,
    strategy: str = "auto",
    *,
    minimise: str = "load",
    max_overhead: Fraction | int = 0,
) -> HierarchyReport:
    """Loads of every level and link, beside uncoded exchange by relays and beside a star, as JSON types.

    Parameters
    ----------
    request : PlanRequest
        It must have a topology.
    star : sequence of Candidate
        The exact strategies of the star, as `compare` returns them.
    network : "unicast" or "multicast"
    strategy : str
        One of the exact strategies. Any other word, such as "auto", is for what is cheapest on the links to
        the server, or takes the least time if speeds are known; the star has the cheapest of its own then.
    minimise : "load", "cost" or "makespan"
        The quantity that the rates between relays and server minimise.
    max_overhead : Fraction
        As for `make_plan`.

    Raises
    ------
    UsageError, PlanError
        As for `make_plan`.
    """
    topology = request.topology
    assert topology is not None, "only requests with relays are reported"
    workers = topology.placement.workers
    speeds = _all(workers, request.speeds, request.relay_speeds)
    hierarchies = compare_hierarchies(
        topology,
        request.tasks,
        wants=request.wants,
        prices=_all(workers, request.prices, request.relay_prices) if minimise == "cost" else None,
        speeds=speeds if minimise == "makespan" else None,
        max_overhead=max_overhead,
    )
    ours = {each.server.strategy: each for each in hierarchies}
    stars = {each.strategy: each for each in star}
    links = {name: each.links(network) for name, each in ours.items()}
    stars_links = {name: star_links(topology, each, network) for name, each in stars.items()}
    chosen = beside = strategy
    if strategy not in ours:
        chosen = _cheapest({name: each.server.cost(network) for name, each in ours.items()}, links, speeds)
        beside = _cheapest({name: each.cost(network) for name, each in stars.items()}, stars_links, speeds)
    others = {"star": stars_links[beside]}
    if "uncoded" in links:
        others["uncoded"] = links["uncoded"]
    return {
        "strategy": chosen,
        "star_strategy": beside,
        "levels": _levels(ours[chosen], others, topology),
        "limits": ours[chosen].server.limits,
        "links": _links(links[chosen], others),
        "times": None
        if speeds is None
        else {
            name: str(round_time(each, speeds)) for name, each in {"relays": links[chosen], **others}.items()
        },
    }


def _all(
    workers: Sequence[str], own: Sequence[Fraction] | None, relays: Mapping[str, Fraction] | None
) -> dict[str, Fraction] | None:
    if own is None or relays is None:
        return None
    return {**dict(zip(workers, own, strict=True)), **relays}


def _cheapest(
    costs: Mapping[str, Fraction],
    links: Mapping[str, Sequence[LinkLoads]],
    speeds: Mapping[str, Fraction] | None,
) -> str:
    """The strategy of the shortest round if speeds are known, else of the least cost; the first of equals."""
    if speeds is None:
        return min(costs, key=costs.__getitem__)
    return min(costs, key=lambda name: (round_time(links[name], speeds), costs[name]))


def _levels(
    hierarchy: Hierarchy, others: Mapping[str, Sequence[LinkLoads]], topology: Topology
) -> list[dict[str, Any]]:
    rows = []
    for level in hierarchy.levels:
        row: dict[str, Any] = {
            "relay": level.relay,
            "nodes": list(level.nodes),
            "stored": len(
                topology.placement.partitions if level.relay is None else topology.stored(level.relay)
            ),
            "uplink_load": str(level.uplink_load),
            "downlink_load": str(level.downlink_load),
            "unicast_load": str(sum(level.copies, Fraction(0))),
        }
        if level.relay is None:
            row["uplink_bound"] = str(hierarchy.server.uplink_bound)
            row["downlink_bound"] = str(hierarchy.server.downlink_bound)
        for name, links in others.items():
            here = [link for link in links if link.parent == level.relay]
            row[f"{name}_up"] = str(sum((link.up for link in here), Fraction(0)))
            row[f"{name}_down"] = str(sum((link.down for link in here), Fraction(0)))
        rows.append(row)
    return rows


def _links(links: Sequence[LinkLoads], others: Mapping[str, Sequence[LinkLoads]]) -> list[dict[str, Any]]:
    rows = []
    for link in links:
        row: dict[str, Any] = {
            "node": link.node, "parent": link.parent, "up": str(link.up), "down": str(link.down)
        }  # fmt: skip
        for name, same in others.items():
            found = [each for each in same if (each.node, each.parent) == (link.node, link.parent)]
            row[f"{name}_up"] = str(sum((each.up for each in found), Fraction(0)))
            row[f"{name}_down"] = str(sum((each.down for each in found), Fraction(0)))
        rows.append(row)
    return rows
