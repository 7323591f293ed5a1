from __future__ import annotations

import logging

import pytest
from support.members import Script

from asyncdmtl.errors import RemoteProtocolError
from asyncdmtl.net.peer_keys import peer_key
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.protocol.messages.registry import AskRows, Listen, Listens, PeerReport, RowsLacking
from asyncdmtl.server.peer_rows import PeerRowsServer
from asyncdmtl.server.records import PEER_ROWS


async def test_workers_are_asked_where_they_listen() -> None:
    rows, listening, silent = PeerRowsServer(Ledger()), Script("w0"), Script("w1")
    listening.says(Listens("10.0.0.2", 7702))
    silent.says(Listens(reason="accepts no connections"))
    for script in (listening, silent):
        await rows.ask(script.member)
        assert script.member.exchanges
        assert isinstance(script.sent[0], Listen)
    assert listening.sent[0].secret != silent.sent[0].secret
    assert silent.member.place is None
    assert listening.member.place is not None
    peer = listening.member.place.peer("w0", "w1")
    assert (peer.host, peer.port, peer.key) == ("10.0.0.2", 7702, peer_key(listening.sent[0].secret, "w1"))
    assert rows.record((), carried=True).without_port == {"w1": "accepts no connections"}


async def test_a_worker_that_lacks_rows_is_served_until_it_comes_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows, script = PeerRowsServer(Ledger()), Script("w0")
    script.says(Listens("10.0.0.2", 7702))
    await rows.ask(script.member)
    with caplog.at_level(logging.WARNING):
        rows.serve(script.member, RowsLacking(0, 1, "cannot reach worker 'w1'"))
    assert caplog.messages == ["worker w0 is served by the server: cannot reach worker 'w1'"]
    assert not script.member.exchanges
    assert rows.record((), carried=True).served_by_server == {"w0": "cannot reach worker 'w1'"}
    script.says(Listens("10.0.0.3", 7702))
    await rows.ask(again := script.member)
    assert again.exchanges
    assert rows.record(("w10", "w9"), carried=False).exchanging == ("w9", "w10")


async def test_what_workers_report_is_counted() -> None:
    ledger = Ledger()
    rows, members = PeerRowsServer(ledger), [Script(name).member for name in ("w0", "w1", "w2")]
    rows.listen_to(members, 3, 8)
    for round_ in (0, 1):
        assert members[1].connection.on_peer_rows is not None
        members[1].connection.on_peer_rows(PeerReport(0, round_, ((0, 8, 40), (2, 4, 40))))
    assert rows.record((), carried=False).links == {("w0", "w1"): (16, 80), ("w2", "w1"): (8, 80)}
    assert ledger.total(lambda e: e.kind == PEER_ROWS and e.worker == "w1") == (24, 160)


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (PeerReport(0, 1, ((0, 8, 40),)), "names worker 0 of 2"),
        (PeerReport(0, 1, ((2, 8, 40),)), "names worker 2 of 2"),
        (PeerReport(0, 1, ((1, 8, 40), (1, 8, 40))), "names worker 1 of 2 as its peer, once more"),
        (PeerReport(0, 1, ((1, 49, 40),)), "at most"),
        (PeerReport(0, 1, ((1, 8, 2**53),)), "at most"),
        (PeerReport(0, 0, ((1, 8, 40),)), "a report of round 0 follows one of round 0"),
        (AskRows(0, 1, 0, 0, 1), "does not send ask-rows to the server"),
    ],
)
async def test_reports_that_cannot_be_are_refused(message: PeerReport | AskRows, complaint: str) -> None:
    rows, script = PeerRowsServer(Ledger()), Script("w0")
    rows.listen_to([script.member, Script("w1").member], 3, 8)
    assert script.member.connection.on_peer_rows is not None
    script.member.connection.on_peer_rows(PeerReport(0, 0, ((1, 48, 40),)))
    with pytest.raises(RemoteProtocolError, match=complaint):
        script.member.connection.on_peer_rows(message)
    assert rows.record((), carried=False).links == {("w1", "w0"): (48, 40)}
