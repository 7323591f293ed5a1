from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from asyncdmtl.errors import RemoteProtocolError
from asyncdmtl.protocol.messages.base import NO_BODY
from asyncdmtl.protocol.messages.peers import (
    MAX_CERTIFICATE_BYTES,
    AskRows,
    GiveRows,
    Listen,
    Listens,
    Peer,
    PeerReport,
    RowsLacking,
)

PEER = Peer("w1", "10.0.0.2", 7702, b"certificate", bytes(32))
BODY = np.arange(6, dtype=np.uint8)


def test_a_peer_is_read_as_it_was_written() -> None:
    assert Peer.parse_each([list(PEER)]) == (PEER,)
    with pytest.raises(RemoteProtocolError, match="named twice"):
        Peer.parse_each([list(PEER), list(PEER)])


@pytest.mark.parametrize(
    ("position", "value", "complaint"),
    [
        (0, "", "worker name"),
        (1, 5, "host"),
        (2, 0, "port must be an integer from 1"),
        (3, bytes(MAX_CERTIFICATE_BYTES + 1), "certificate must be at most"),
        (4, bytes(31), "key must be 1 × 32 bytes"),
    ],
)
def test_a_peer_with_a_wrong_field_is_refused(position: int, value: Any, complaint: str) -> None:
    fields: list[Any] = list(PEER)
    fields[position] = value
    with pytest.raises(RemoteProtocolError, match=complaint):
        Peer.parse(fields)


def test_messages_are_read_as_they_were_written() -> None:
    for message in (
        Listen(bytes(32)),
        Listens("10.0.0.2", 7702, b"certificate"),
        Listens(reason="accepts no connections"),
        PeerReport(0, 1, ((0, 8, 40), (2, 0, 9))),
        RowsLacking(0, 1, "cannot reach worker 'w1'"),
        AskRows(0, 1, 2, 0, 6),
    ):
        again = type(message).parse(message.fields(), NO_BODY)
        assert vars(again) == vars(message)


def test_the_body_of_a_part_has_the_length_of_the_part() -> None:
    give = GiveRows(0, 1, 2, 10, 16, (BODY[:2], BODY[2:]))
    assert GiveRows.parse(give.fields(), BODY).place == (2, 10, 16)
    assert GiveRows.parse(give.fields(), NO_BODY).body.nbytes == 0
    with pytest.raises(RemoteProtocolError, match="5 bytes came, of 6 that were named"):
        GiveRows.parse(give.fields(), BODY[:5])
    with pytest.raises(RemoteProtocolError, match="end must be an integer from 11"):
        AskRows.parse([0, 1, 2, 10, 10], NO_BODY)


@pytest.mark.parametrize("link", [[0, 1], [-1, 0, 0], [0, 0, 2**60], "w0"])
def test_a_report_of_other_links_is_refused(link: Any) -> None:
    with pytest.raises(RemoteProtocolError):
        PeerReport.parse([0, 1, [link]], NO_BODY)


def test_reasons_are_short_and_printable() -> None:
    (*_, reason) = RowsLacking(0, 1, "x" * 300).fields()
    assert len(reason) == 200
    with pytest.raises(RemoteProtocolError, match="printable"):
        RowsLacking.parse([0, 1, "a\nb"], NO_BODY)
