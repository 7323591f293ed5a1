from __future__ import annotations

from typing import Any

import msgpack
import pytest
from support.messages import BODY, EXAMPLES

from asyncdmtl.errors import RemoteProtocolError
from asyncdmtl.protocol.messages import registry
from asyncdmtl.protocol.messages.joining import (
    DEFAULT_SILENCE,
    VERSION,
    Challenge,
    Declare,
    DeclareSome,
    Hello,
    Prepare,
    Proof,
    Ready,
    Welcome,
)

CLASSES = (Hello, Challenge, Proof, Welcome, DeclareSome, Declare, Prepare, Ready)


@pytest.mark.parametrize("cls", CLASSES)
def test_a_message_is_parsed_from_its_fields(cls: type[Any]) -> None:
    message = EXAMPLES[cls.kind]
    assert cls.parse(message.fields(), BODY[:0]).fields() == message.fields()
    assert not cls.has_body


def test_defaults() -> None:
    assert Hello(VERSION, "w0").silence == Welcome("run", {}).silence == DEFAULT_SILENCE
    assert Declare(()).fields() == [[], 0, False, b"", [{}, {}], "", []]
    assert Welcome.parse(["run", {}, 1.0, b"", False, "auto"], BODY[:0]).proof == b""


def test_another_version_is_refused_whatever_follows_it() -> None:
    for values in ([99], [99, 1, 2, 3, 4]):
        with pytest.raises(RemoteProtocolError, match=f"version 99, this server {VERSION}"):
            Hello.parse(values, BODY[:0])
    with pytest.raises(RemoteProtocolError, match="protocol version must be an integer"):
        Hello.parse([], BODY[:0])


@pytest.mark.parametrize(
    ("kind", "position", "value", "complaint"),
    [
        ("hello", 1, True, "protocol version"),
        ("hello", 2, "", "worker name"),
        ("hello", 2, "a\nb", "worker name"),
        ("hello", 2, "x" * 201, "worker name"),
        ("hello", 3, 0.0, "silence"),
        ("welcome", 6, "fast", "strategy"),
        ("challenge", 1, "a\n", "run"),
        ("challenge", 2, bytes(31), "nonce"),
        ("proof", 1, bytes(33), "nonce"),
        ("proof", 2, "x" * 32, "proof"),
        ("welcome", 1, "", "run"),
        ("welcome", 2, [1], "settings"),
        ("welcome", 3, float("inf"), "silence"),
        ("welcome", 4, bytes(31), "proof"),
        ("welcome", 5, 1, "blind"),
        ("declare-some", 1, [["p", "t", bytes(15), 1, {}, 0]], "partition digest"),
        ("declare", 1, [["p", "t", bytes(15), 1, {}, 0]], "partition digest"),
        ("declare", 2, -1, "round"),
        ("declare", 3, 0, "over"),
        ("declare", 4, bytes(7), "state check"),
        ("declare", 6, "some", "wants"),
        ("declare", 7, ["w0", "w0"], "workers behind must be at most 1024 names, each once"),
        ("prepare", 1, [1], "encoding"),
        ("declare", 1, [["p", "t", bytes(16), 1, {}, -1]], "test rows"),
        ("ready", 1, [["p", "t", bytes(16), 1, 0.0, 1, 0.0, "", 0, b""]], "weight"),
        ("ready", 1, [["p", "t", bytes(16), 1, 1.0, 1, 0.0, "", 0, "text"]], "sealed facts"),
    ],
)
def test_a_wrong_field_is_named(kind: str, position: int, value: Any, complaint: str) -> None:
    message = EXAMPLES[kind]
    values = [message.number, *message.fields()]
    values[position] = value
    with pytest.raises(RemoteProtocolError, match=complaint):
        registry.unpack(msgpack.packb(values), BODY if message.has_body else BODY[:0])
