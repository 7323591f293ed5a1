from __future__ import annotations

from measure_relays import TOPOLOGIES, compared
from namespaces import Counters

from asyncdmtl.plan.hierarchy.levels import compare_hierarchies


def loads(shape: str) -> dict[str, tuple[int, int]]:
    """The loads between relays and server of each strategy."""
    hierarchies = {each.server.strategy: each.levels[0] for each in compare_hierarchies(TOPOLOGIES[shape]())}
    return {name: (int(each.uplink_load), int(each.downlink_load)) for name, each in hierarchies.items()}


def test_topologies_have_the_loads_of_the_papers() -> None:
    assert {name: loads("pairs")[name] for name in ("relay", "uncoded")} == {
        "relay": (4, 3),
        "uncoded": (6, 6),
    }
    sites = TOPOLOGIES["sites"]()
    assert [len(sites.stored(site)) for site in sites.relays] == [8, 8, 8]
    assert {len(own) for own in sites.placement.stored} == {2}
    assert loads("sites")["relay"] == (6, 4)


def test_headers_of_packets_are_not_counted() -> None:
    counted = Counters(66 + 1010, 2 * 66, 1, 2, 0)
    assert compared(counted, 0, 1000) == ("   0.00 MB (none planned)", "   0.00 MB (+1.00%)")
