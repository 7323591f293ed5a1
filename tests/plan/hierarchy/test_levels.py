from __future__ import annotations

import random
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from support.oracle import least_uplink_load
from support.placements import random_placement

from asyncdmtl.errors import UsageError
from asyncdmtl.plan.compare import compare
from asyncdmtl.plan.hierarchy.levels import compare_hierarchies, round_time, star_links
from asyncdmtl.plan.hierarchy.topology import Topology
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.planner import make_plan

PAIRS = list(combinations("1234", 2))
SHARED = Topology(
    Placement({"".join(pair): ["p" + "".join(pair)] for pair in PAIRS}),
    {f"r{h}": ["".join(pair) for pair in PAIRS if h in pair] for h in "1234"},
)
DISJOINT = Topology(
    Placement({f"w{k}": [f"p{k}"] for k in range(6)}),
    {f"r{h}": [f"w{2 * h}", f"w{2 * h + 1}"] for h in range(3)},
)


def random_topology(rng: random.Random) -> Topology:
    """Relays in any number of layers; workers at none, one or several of them."""
    placement = random_placement(rng)
    relays: dict[str, list[str]] = {}
    for h in range(rng.randint(1, 4)):
        nodes = [*placement.workers, *relays]
        relays[f"r{h}"] = rng.sample(nodes, rng.randint(1, len(nodes)))
    return Topology(placement, relays)


@pytest.mark.parametrize(("topology", "loads"), [(SHARED, [4, 3]), (DISJOINT, [6, 4])], ids=["pairs", "own"])
def test_the_examples_of_the_theory(topology: Topology, loads: list[int]) -> None:
    relay, *_, uncoded = compare_hierarchies(topology)
    level = relay.levels[0]
    assert [level.uplink_load, level.downlink_load] == loads
    assert [relay.server.uplink_bound, relay.server.downlink_bound] == loads
    assert [uncoded.levels[0].uplink_load, uncoded.levels[0].downlink_load] == [6, 6]
    below = relay.levels[1]
    assert [below.uplink_load, below.downlink_load] == [len(topology.relays[below.relay or ""]), 5]


@pytest.mark.parametrize("seed", range(60))
def test_loads_are_those_of_brute_force_on_random_topologies(seed: int) -> None:
    topology = random_topology(random.Random(seed))
    placement = topology.placement
    stored = dict(zip(placement.workers, map(set, placement.stored), strict=True))

    def behind(node: str) -> set[int]:
        if node in stored:
            return stored[node]
        return set().union(*map(behind, topology.relays[node]))

    N = len(placement.partitions)
    named = {node for nodes in topology.relays.values() for node in nodes}
    top = [node for node in (*placement.workers, *topology.relays) if node not in named]
    U = [behind(node) for node in top]
    least = least_uplink_load(Placement({str(h): map(str, held) for h, held in enumerate(U)}))[0]
    relay, *_, uncoded = compare_hierarchies(topology)
    server = relay.levels[0]
    assert server.uplink_load == least
    assert server.downlink_load == N - min(map(len, U))
    assert list(server.copies) == [N - len(held) for held in U]
    assert uncoded.levels[0].downlink_load == N
    for level in relay.levels[1:]:
        assert level.relay is not None
        assert level.uplink_load == len(behind(level.relay))
        assert all(rate <= len(behind(node)) for node, rate in zip(level.nodes, level.rates, strict=True))
        assert level.downlink_load == N - min(len(behind(node)) for node in level.nodes)
    assert sorted(link.node for link in relay.links("unicast")) == sorted(
        [*top, *(node for nodes in topology.relays.values() for node in nodes)]
    )


@pytest.mark.parametrize("seed", range(12))
def test_relays_decode_all_updates_and_can_serve_their_nodes(seed: int) -> None:
    topology = random_topology(random.Random(seed))
    placement = topology.placement
    updates = np.random.default_rng(seed).integers(0, 256, (len(placement.partitions), 24), dtype=np.uint8)
    number = {name: n for n, name in enumerate(placement.partitions)}
    top = topology.placement_of(topology.top)
    plan = make_plan(top, units="updates")
    rows = plan.recombine([plan.encode(h, updates[list(held)]) for h, held in enumerate(top.stored)])
    for h, held in enumerate(top.stored):
        needed = rows[list(plan.deliveries[h].rows)]
        assert np.array_equal(plan.decode(h, needed, updates[list(held)]), updates[list(top.missing(h))])
    for relay in topology.top_down:
        nodes = topology.relays[relay]
        below = topology.placement_of(nodes, "above")
        down = make_plan(below, "central", wants={"above": "none"})
        assert down.downlink_load == len(number) - min(len(topology.stored(node)) for node in nodes)


def test_a_star_shares_the_links_of_its_sites() -> None:
    placement = Placement({"a": ["x"], "b": ["y"], "c": ["x", "y"]})
    topology = Topology(placement, {"inner": ["a"], "outer": ["inner", "b"]})
    (star,) = (each for each in compare(placement) if each.strategy == "relay")
    links = {(link.node, link.parent): link for link in star_links(topology, star, "unicast")}
    assert links["outer", None].up == star.rates[0] + star.rates[1]
    assert links["outer", None].down == 2
    assert links["inner", "outer"] == links["a", "inner"].__class__(
        "inner", "outer", star.rates[0], Fraction(1)
    )
    by_multicast = {link.node: link.down for link in star_links(topology, star, "multicast")}
    assert by_multicast == {"a": 1, "inner": 1, "outer": 1, "b": 1, "c": 0}


def test_times_are_those_of_the_slowest_links() -> None:
    links = compare_hierarchies(DISJOINT)[0].links("unicast")
    workers = dict.fromkeys(DISJOINT.placement.workers, Fraction(100))
    speeds = {**workers, "r0": Fraction(2), "r1": Fraction(4), "r2": Fraction(10)}
    # Relay r0 sends two vectors and is sent four.
    assert round_time(links, speeds) == Fraction(2, 2) + Fraction(4, 2)
    assert round_time(links, {**speeds, "r2": Fraction(1)}) == 2 + 4


def test_rates_between_relays_and_server_follow_the_speeds_of_their_links() -> None:
    placement = Placement({"a": ["x", "y"], "b": ["x", "y"], "c": ["z"]})
    topology = Topology(placement, {"r": ["a"], "s": ["b"], "t": ["c"]})
    speeds = {"r": Fraction(3), "s": Fraction(1), "t": Fraction(10)}
    level = compare_hierarchies(topology, speeds=speeds)[0].levels[0]
    assert list(level.rates) == [Fraction(3, 2), Fraction(1, 2), 1]
    with pytest.raises(UsageError, match="speeds must have a number for every worker and relay; without"):
        compare_hierarchies(topology, speeds={"r": Fraction(1)})


def test_relays_with_helpers_only_are_sent_nothing_and_aggregates_go_down_by_task() -> None:
    placement = Placement({"a": ["x", "y"], "b": ["z"], "c": ["w"]})
    topology = Topology(placement, {"r": ["a"], "s": ["b", "c"]})
    compared = compare_hierarchies(topology, [0, 0, 1, 1], wants=["none", "all", "none"])
    found = {each.server.strategy: each for each in compared}
    assert list(found["relay"].levels[0].copies) == [0, 2]
    assert list(found["relay"].levels[2].copies) == [3, 0]
    # Partitions w and x are of the first task, which no site stores whole.
    assert list(found["central"].levels[0].copies) == [0, 2]
    assert list(found["central"].levels[2].copies) == [2, 0]
    assert list(found["personal"].levels[2].copies) == [1, 0]


def test_the_cheapest_node_sends_to_its_relay() -> None:
    placement = Placement({"a": ["x", "y"], "b": ["x", "y"]})
    topology = Topology(placement, {"r": ["a", "b"]})
    prices = {"a": Fraction(2), "b": Fraction(1), "r": Fraction(5)}
    relay = compare_hierarchies(topology, prices=prices)[0]
    assert list(relay.levels[1].rates) == [0, 2]
    assert relay.levels[0].uplink_load == 0
