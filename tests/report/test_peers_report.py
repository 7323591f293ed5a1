from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from asyncdmtl.report.peers_report import peers_words, report_peers
from asyncdmtl.server.records import PeersRecord


def record(peers: PeersRecord | None) -> Any:
    return SimpleNamespace(peers=peers)


def test_a_run_without_peers_has_no_such_part() -> None:
    assert report_peers(record(None)) is None


def test_links_and_exceptions_are_told() -> None:
    made = report_peers(
        record(
            PeersRecord(
                ("w0", "w1"), True, {"w2": "cannot reach worker 'w3'"}, {"w3": "accepts no connections"},
                {("w1", "w0"): (3_000, 60), ("w0", "w1"): (8_000, 80)},
            )
        )
    )  # fmt: skip
    assert made is not None
    assert made["links"][0] == {"from": "w0", "to": "w1", "payload_bytes": 8_000, "framing_bytes": 80}
    assert peers_words(made) == (
        "2 workers take rows from others over 2 links; some go through the server. w0 gave most, 8 kB, and "
        "w1 least, 3 kB. w2 was served by the server: cannot reach worker 'w3'. w3 accepts no connections."
    )


def test_nothing_was_given() -> None:
    made = report_peers(record(PeersRecord((), False, {}, {}, {})))
    assert made is not None
    assert peers_words(made) == "0 workers take rows from others over 0 links; none go through the server."
