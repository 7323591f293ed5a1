from __future__ import annotations

from fractions import Fraction
from itertools import combinations, product

import pytest

from asyncdmtl.errors import PlacementError, UsageError
from asyncdmtl.plan.design.additions import best_additions
from asyncdmtl.plan.design.hierarchy import HierarchyLoads, design_hierarchy
from asyncdmtl.plan.hierarchy.levels import compare_hierarchies
from asyncdmtl.plan.hierarchy.topology import Topology
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.rates.optimum import uplink_optimum

PAIRS = {"a": ["w0", "w1", "w2"], "b": ["w0", "w3", "w4"], "c": ["w1", "w3", "w5"], "d": ["w2", "w4", "w5"]}


def loads(topology: Topology) -> tuple[Fraction, Fraction]:
    """The loads between relays and server as the planner computes them."""
    relay = next(each for each in compare_hierarchies(topology) if each.server.strategy == "relay")
    return relay.levels[0].uplink_load, relay.levels[0].downlink_load


def least(relays: dict[str, list[str]], m: list[int], N: int, copies: int) -> Fraction:
    """The least total load over all placements, each of which is tried."""
    found = []
    for holders in product(list(combinations(range(len(m)), copies)), repeat=N):
        stored: dict[str, list[str]] = {f"w{k}": [] for k in range(len(m))}
        for n, own in enumerate(holders):
            for k in own:
                stored[f"w{k}"].append(f"p{n}")
        if all(len(own) <= room for own, room in zip(stored.values(), m, strict=True)):
            topology = Topology(Placement(stored, [f"p{n}" for n in range(N)]), relays)
            above = topology.placement_of(topology.top)
            found.append(uplink_optimum(above).load + N - min(map(len, above.stored)))
    return min(found)


def test_three_sites_have_the_loads_of_the_papers() -> None:
    sites = {f"site{h}": [f"w{k}" for k in range(4 * h, 4 * h + 4)] for h in range(3)}
    made = design_hierarchy(sites, [2] * 12, 12, copies=2)
    assert (made.uplink_load, made.downlink_load) == loads(made.topology)
    assert [made.uplink_load, made.downlink_load] == [6, 4]
    assert made.optimal
    assert made.flat_uplink_load > 6
    assert {len(own) for own in made.topology.placement.holders} == {2}
    assert max(map(len, made.topology.placement.stored)) == 2


def test_users_at_several_relays_have_the_loads_of_the_papers() -> None:
    made = design_hierarchy(PAIRS, [1] * 6, 6, copies=1)
    assert (made.uplink_load, made.downlink_load) == loads(made.topology)
    assert [made.uplink_load, made.downlink_load] == [4, 3]
    assert made.optimal


@pytest.mark.parametrize(
    ("relays", "m", "N", "copies"),
    [
        ({"a": ["w0", "w1"], "b": ["w2"]}, [1, 2, 3], 3, 2),
        ({"a": ["w0", "w1"], "b": ["w1", "w2"]}, [2, 2, 2], 3, 1),
        # Both copies of some partition must be at one site.
        ({"a": ["w0", "w1", "w2"]}, [2, 2, 2, 1], 3, 2),
        ({"a": ["w0", "b"], "b": ["w1"]}, [2, 2, 3], 3, 2),
    ],
)
def test_designs_are_the_best_of_all_placements(
    relays: dict[str, list[str]], m: list[int], N: int, copies: int
) -> None:
    made = design_hierarchy(relays, m, N, copies=copies)
    total = made.uplink_load + made.downlink_load
    assert total == least(relays, m, N, copies)
    assert made.uplink_bound + made.downlink_bound <= total
    placement = made.topology.placement
    assert [len(own) for own in placement.holders] == [copies] * N
    assert all(len(own) <= room for own, room in zip(placement.stored, m, strict=True))


def test_all_room_is_used_unless_copies_are_given() -> None:
    relays, room = {"a": ["w0", "w1"], "b": ["w2"]}, {"w0": 4, "w1": 4, "w2": 3, "w3": 1}
    made = design_hierarchy(relays, room, 6)
    assert [len(own) for own in made.topology.placement.stored] == [4, 4, 3, 1]
    assert made.topology.stored("a") == tuple(f"p{n}" for n in range(6))
    assert made == design_hierarchy(relays, room, 6)


def test_wrong_topologies_and_capacities_are_named() -> None:
    with pytest.raises(PlacementError, match="relay 'a' must name workers and relays; unknown"):
        design_hierarchy({"a": ["w9"]}, [2, 2], 2)
    with pytest.raises(PlacementError, match="capacities must hold each of 5 partitions once"):
        design_hierarchy({"a": ["w0"]}, [2, 2], 5)


def test_the_next_copies_lower_the_loads_at_the_server() -> None:
    placement = Placement({"a": ["p0"], "b": ["p1"], "c": ["p2"], "d": ["p3"]})
    topology = Topology(placement, {"north": ["a", "b"], "south": ["c", "d"]})
    more, added = best_additions(placement, 2, HierarchyLoads(topology))
    # Each site takes a partition of the other one; a second copy at a site would lower nothing.
    assert [each.uplink_load + each.downlink_load for each in added] == [5, 3]
    for each in added:
        site = next(relay for relay, nodes in topology.relays.items() if each.worker in nodes)
        assert each.partition not in topology.stored(site)
    assert (added[-1].uplink_load, added[-1].downlink_load) == loads(Topology(more, topology.relays))
    with pytest.raises(UsageError, match="wants must not be own where there are relays"):
        HierarchyLoads(topology, wants=["own", "all", "all", "all"])
