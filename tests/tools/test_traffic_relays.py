from __future__ import annotations

from typing import Any

import pytest
from traffic_relays import CountedTree, Link, links_of, show_tree

from asyncdmtl.launch.relays import spread_workers
from asyncdmtl.plan.placement import Placement

# Workers w0 and w1 behind one relay, w2 and w3 behind the other one; each relay lacks one partition.
TOPOLOGY = spread_workers(Placement.cyclic(4, 4, 2), 2)


def entry(worker: str, direction: str, kind: str, payload: int) -> dict[str, Any]:
    return {
        "worker": worker, "direction": direction, "kind": kind,
        "payload_bytes": payload, "framing_bytes": 7,
    }  # fmt: skip


def count(received: int, sent: int, again: int) -> dict[str, int]:
    return {"received_bytes": received, "sent_bytes": sent, "retransmitted_bytes": again}


def sums(up: int, down: int) -> dict[str, int]:
    return {
        f"{way}_{part}": n for way, n in (("up", up), ("down", down)) for part in ("bytes", "payload_bytes")
    }


def test_every_link_has_its_counts_of_both_ends(capsys: pytest.CaptureFixture[str]) -> None:
    ways = (("up", "uplink"), ("down", "downlink"), ("down", "welcome"))
    report = {
        "strategy": "relay",
        "rounds": [{}, {}],
        "vector": {"bytes": 100},
        "ledger": [entry(relay, way, kind, 200) for relay in TOPOLOGY.relays for way, kind in ways],
        "kernel": {relay: count(207, 500, 86) for relay in TOPOLOGY.relays},
    }
    told = {
        relay: {"above": sums(207, 414), "links": {node: sums(300, 400) for node in nodes}, "kernel": {}}
        for relay, nodes in TOPOLOGY.relays.items()
    }
    links = links_of(TOPOLOGY, report, told)
    assert links[:2] == (
        Link("relay0", "server", "up", 200, 200, 207, 207, 207),
        Link("relay0", "server", "down", 200, 200, 414, 414, 414),
    )
    below = [link for link in links if link.parent == "relay0"]
    assert [(link.node, link.way, link.plan, link.ledger) for link in below] == [
        ("w0", "up", 400, 300), ("w0", "down", 400, 400), ("w1", "up", 200, 300), ("w1", "down", 400, 400),
    ]  # fmt: skip
    assert {(link.lower, link.kernel) for link in below} == {(None, None)}
    show_tree(CountedTree(report, links, None))
    shown = capsys.readouterr().out
    assert "below relay1:" in shown
    assert "+107.000%" in shown
