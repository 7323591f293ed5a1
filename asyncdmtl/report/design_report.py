"""The report of `asyncdmtl place`: a placement, and the loads for other numbers of copies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from fractions import Fraction
from typing import Any

from asyncdmtl.plan.design.additions import Addition, RoundLoads
from asyncdmtl.plan.design.hierarchy import HierarchyDesign
from asyncdmtl.plan.design.search import Design, TradeOff
from asyncdmtl.plan.placement import Placement

DesignReport = dict[str, Any]


def report_design(
    design: Design,
    capacities: Mapping[str, int],
    speeds: Sequence[Fraction] | None,
    rows: Sequence[TradeOff],
) -> DesignReport:
    """A design and the trade-off in plain JSON types, fractions as strings.

    Parameters
    ----------
    design : Design
    capacities : mapping of worker to int
        Partitions that each worker may store.
    speeds : sequence of K Fractions, or None
        The speeds of the workers' links, if time was minimised instead of the load.
    rows : sequence of TradeOff
        Loads for several numbers of copies.
    """
    placement = design.placement
    return {
        **_stores(placement, capacities),
        **_loads(design, placement.workers),
        "uncoded_load": str(len(placement.partitions)),
        "speeds": None if speeds is None else dict(zip(placement.workers, map(str, speeds), strict=True)),
        "times": design.times and {key: str(value) for key, value in asdict(design.times).items()},
        "gap": str(design.gap),
        "optimal": design.optimal,
        "trade_off": [
            {key: str(value) if isinstance(value, Fraction) else value for key, value in asdict(row).items()}
            for row in rows
        ],
    }


def report_hierarchy_design(design: HierarchyDesign, capacities: Mapping[str, int]) -> DesignReport:
    """A design for a topology in plain JSON types, fractions as strings.

    Parameters
    ----------
    design : HierarchyDesign
    capacities : mapping of worker to int
        Partitions that each worker may store.
    """
    topology = design.topology
    return {
        **_stores(topology.placement, capacities),
        "relays": {relay: list(nodes) for relay, nodes in topology.relays.items()},
        "stored": {node: list(topology.stored(node)) for node in topology.top},
        **_loads(design, topology.top),
        "flat_uplink_load": str(design.flat_uplink_load),
        "flat_downlink_load": str(design.flat_downlink_load),
        "uncoded_load": str(len(topology.placement.partitions)),
        "times": None,
        "gap": str(design.gap),
        "optimal": design.optimal,
    }


def report_additions(
    before: Placement,
    after: Placement,
    additions: Sequence[Addition],
    loads: RoundLoads,
    minimised: str = "load",
) -> DesignReport:
    """Copies that were added to a placement, and the loads of a round, in plain JSON types.

    Parameters
    ----------
    before, after : Placement
    additions : sequence of Addition
        The copies that only `after` has, in their order.
    loads : RoundLoads
        The loads that were minimised.
    minimised : "load", "cost" or "makespan"
        The quantity that the loads in the report stand for.
    """
    uplink, downlink = loads.of(before)
    return {
        "placement": after.as_dict(),
        "partitions": list(after.partitions),
        "strategy": loads.strategy,
        "minimised": minimised,
        "uplink_load": str(uplink),
        "downlink_load": str(downlink),
        "additions": [
            {key: str(value) if key.endswith("load") else value for key, value in asdict(each).items()}
            for each in additions
        ],
    }


def _stores(placement: Placement, capacities: Mapping[str, int]) -> DesignReport:
    """What workers store, and may store."""
    return {
        "placement": placement.as_dict(),
        "partitions": list(placement.partitions),
        "capacities": dict(capacities),
        "copies": str(Fraction(sum(map(len, placement.stored)), len(placement.partitions))),
    }


def _loads(design: Design | HierarchyDesign, senders: Sequence[str]) -> DesignReport:
    """The loads of a design and their bounds; `senders` are the nodes of its uplink rates."""
    return {
        "uplink_loads": dict(zip(senders, map(str, design.uplink_rates), strict=True)),
        "uplink_load": str(design.uplink_load),
        "uplink_bound": str(design.uplink_bound),
        "downlink_load": str(design.downlink_load),
        "downlink_bound": str(design.downlink_bound),
    }
