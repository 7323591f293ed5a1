from __future__ import annotations

from support.reports import shown

from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.report.relay_report import copy_words, level_totals, link_table, link_totals, member_words


def test_bytes_are_summed_for_each_link_and_for_all() -> None:
    ledger = Ledger()
    ledger.count("w0", "up", "uplink", 0, payload=100, size=110)
    ledger.count("w0", "down", "downlink", 0, payload=50, size=70)
    ledger.count("w1", "up", "declare", None, payload=0, size=30)
    links = link_totals(ledger)
    assert links["w0"] == {
        "up_bytes": 110,
        "up_payload_bytes": 100,
        "down_bytes": 70,
        "down_payload_bytes": 50,
    }
    assert links["w1"]["up_bytes"] == 30
    assert level_totals(ledger) == links["w0"] | {"up_bytes": 140}


def test_workers_are_those_of_the_tree_and_not_the_members_of_the_server() -> None:
    report = {"workers": 2, "copies": "9/5"}
    assert (member_words(report), copy_words(report)) == ("2 workers", "1.8 copies")
    parents = {"north": None, "south": None, "a": "north", "b": "north", "c": "south"}
    tree = [{"node": node, "parent": parent} for node, parent in parents.items()]
    report = report | {"tree": tree}
    assert member_words(report) == "3 workers and 2 relays"
    assert copy_words(report) == "1.8 copies behind different links of the server"


def test_links_are_shown_with_loads_and_bytes() -> None:
    link = {
        "node": "w0", "parent": None, "up_load": "3/2", "measured_up_load": "2", "down_load": "4",
        "measured_down_load": "4", "up_bytes": 1000, "down_bytes": 2000,
    }  # fmt: skip
    text = shown(lambda console: console.print(link_table([link, link | {"parent": "north"}])))
    assert "w0 to server" in text
    assert "w0 to north" in text
    assert " 2 │     1.5 │    4 │       4 " in text
