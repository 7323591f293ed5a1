from __future__ import annotations

from typing import Any

import pytest

from asyncdmtl.blinding.agreement import Offer
from asyncdmtl.errors import RemoteProtocolError
from asyncdmtl.protocol.messages.base import NO_BODY
from asyncdmtl.protocol.messages.keys import (
    MAX_CERTIFICATE_BYTES,
    MAX_GIFT_BYTES,
    MAX_KEYS,
    MAX_PROOF_BYTES,
    MAX_TAKERS,
    GroupKeys,
    KeyOrder,
    KeyRequest,
    KeysGiven,
    RenewedKeys,
)

OFFER = Offer("w0", bytes(32), b"proof", b"certificate")
PACKED = ["w0", bytes(32), b"proof", b"certificate"]


def test_messages_are_read_as_they_were_written() -> None:
    for message in (
        KeyRequest(OFFER, bytes(16), 3, False),
        GroupKeys(),
        GroupKeys(OFFER, b"gift"),
        RenewedKeys(OFFER, b"gift"),
        KeyOrder(5, 1, (OFFER, OFFER)),
        KeysGiven(5, (b"gift", b"")),
    ):
        again = type(message).parse(message.fields(), NO_BODY)
        assert vars(again) == vars(message)


@pytest.mark.parametrize(
    ("position", "value", "complaint"),
    [
        (0, "", "worker name"),
        (1, bytes(31), "public key must be 1 × 32 bytes"),
        (2, bytes(MAX_PROOF_BYTES + 1), "proof must have at most"),
        (3, bytes(MAX_CERTIFICATE_BYTES + 1), "certificate must have at most"),
        (3, "text", "certificate"),
    ],
)
def test_an_offer_with_a_wrong_field_is_refused(position: int, value: Any, complaint: str) -> None:
    packed: list[Any] = list(PACKED)
    packed[position] = value
    with pytest.raises(RemoteProtocolError, match=complaint):
        KeyRequest.parse([packed, bytes(16), 0, True], NO_BODY)


@pytest.mark.parametrize(
    ("kind", "values", "complaint"),
    [
        (KeyRequest, [PACKED, bytes(15), 0, True], "name of a key must be 1 × 16 bytes"),
        (KeyRequest, [PACKED, bytes(16), MAX_KEYS + 1, True], "epoch must be"),
        (GroupKeys, [[], b"gift"], "keys of a group must have a giver"),
        (RenewedKeys, [PACKED, bytes(MAX_GIFT_BYTES + 1)], "sealed keys must have at most"),
        (RenewedKeys, [[], b"gift"], "offer"),
        (KeyOrder, [0, 0, [PACKED] * (MAX_TAKERS + 1)], "takers must be at most"),
        (KeysGiven, [0, [b""] * (MAX_TAKERS + 1)], "gifts must be at most"),
    ],
)
def test_a_message_with_a_wrong_field_is_refused(kind: Any, values: list[Any], complaint: str) -> None:
    with pytest.raises(RemoteProtocolError, match=complaint):
        kind.parse(values, NO_BODY)


def test_a_gift_has_room_for_the_keys_of_a_whole_run() -> None:
    assert MAX_GIFT_BYTES >= 16 + 32 * MAX_KEYS
