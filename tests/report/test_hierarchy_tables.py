from __future__ import annotations

from typing import Any

import pytest
from support.reports import shown

from asyncdmtl.report.hierarchy_tables import show_hierarchy, verdict


def row(**changes: str | None) -> dict[str, Any]:
    loads = {
        "up": "1",
        "down": "1",
        "star_up": "2",
        "star_down": "7/2",
        "uncoded_up": "1",
        "uncoded_down": "2",
    }
    return {**loads, **changes}


def hierarchy(**changes: Any) -> dict[str, Any]:
    level = {
        "nodes": ["r", "s"],
        "stored": 3,
        "uplink_load": "3/2",
        "downlink_load": "1",
        "unicast_load": "2",
    }
    made: dict[str, Any] = {
        "strategy": "relay",
        "star_strategy": "central",
        "limits": "worker r stores 2 of 3 updates.",
        "levels": [
            {"relay": None, "uplink_bound": "3/2", "downlink_bound": "1", **level},
            {"relay": "r", **level, "nodes": ["a"], "uplink_load": "2"},
        ],
        "links": [row(node="r", parent=None), row(node="s", parent=None), row(node="a", parent="r")],
        "times": None,
    }
    return made | changes


def text(made: dict[str, Any]) -> str:
    shown_text = shown(lambda report, console: show_hierarchy(report, "unicast", console), made)
    return " ".join(shown_text.replace("│", " ").split())


def test_levels_and_links_have_lines() -> None:
    told = text(hierarchy())
    assert "server 2 3/2 3/2 1 1 2" in told
    assert "r 1 2 3 1 1 2" in told
    assert "star (central): up" in told
    assert "a to r 1 1 2 7/2 1 2" in told
    assert "server: worker r stores 2 of 3 updates." in told


@pytest.mark.parametrize(
    ("network", "told"),
    [
        ("unicast", "7/2 with relays, 11 in a star (68% less)."),
        ("multicast", "5/2 with relays, 15/2 in a star (67% less)."),
    ],
)
def test_vectors_at_the_server_are_counted(network: str, told: str) -> None:
    first, second = verdict(hierarchy(), network)
    assert first == f"Vectors a round on the links to the server: {told}"
    assert "With a table speeds" in second


def test_times_say_whether_relays_pay() -> None:
    times = {"relays": "1/2", "star": "2", "uncoded": "3/4"}
    told = verdict(hierarchy(times=times), "unicast")[1]
    assert told == (
        "Relays pay: on these links a round takes 0.5 with relays, 2 in a star (75% less), "
        "0.75 with relays and no coding."
    )
    slow = verdict(hierarchy(times={"relays": "3", "star": "2"}), "unicast")[1]
    assert slow == "Relays do not pay: on these links a round takes 3 with relays, 2 in a star (50% more)."
    same = verdict(hierarchy(times={"relays": "2", "star": "2"}), "unicast")[1]
    assert same == "Relays do not pay: on these links a round takes 2 with relays, 2 in a star."
