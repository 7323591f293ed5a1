"""Messages through TLS between two ends in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.certificates import Authority

from asyncdmtl.net.tls import TLSChannel, server_context, worker_context
from asyncdmtl.net.tls_pump import PlaintextError, TLSPump
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.protocol.messages.base import Message
from asyncdmtl.protocol.messages.joining import VERSION, Hello
from asyncdmtl.protocol.session import Session


class Socket:
    """Keeps what is written until a test passes it on."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.room = True
        self.closing = False

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return self.closing

    def take(self) -> bytes:
        taken = bytes(self.written)
        self.written.clear()
        return taken


class End:
    """One end: its pump, session and socket."""

    def __init__(self, role: Any, channel: TLSChannel, name: str = "") -> None:
        self.socket = Socket()
        self.session = Session(role, Ledger(), name)
        transport: Any = self.socket
        self.pump = TLSPump(channel, self.session, transport, lambda: self.socket.room)

    def receive(self, data: bytes) -> list[Message]:
        """Receive bytes, a piece at a time, as from a socket."""
        messages: list[Message] = []
        for start in range(0, len(data), len(self.pump.buffer)):
            piece = data[start : start + len(self.pump.buffer)]
            self.pump.buffer[: len(piece)] = piece
            messages += self.pump.received(len(piece))
        return messages


@pytest.fixture
def ends(tmp_path: Any) -> tuple[End, End]:
    authority = Authority(tmp_path / "ca")
    server = End("server", TLSChannel(server_context(*authority.issue("127.0.0.1"))))
    return server, End("worker", TLSChannel(worker_context(authority.ca), "127.0.0.1"), "w0")


def shake_hands(server: End, worker: End) -> None:
    """Pass bytes on until neither end sends any more."""
    while data := worker.socket.take():
        assert server.receive(data) == []
        assert worker.receive(server.socket.take()) == []


def test_the_worker_begins_and_then_messages_pass_encrypted(ends: tuple[End, End]) -> None:
    server, worker = ends
    # Only the worker sends something at first.
    assert worker.socket.written
    assert not server.socket.written
    shake_hands(server, worker)
    worker.pump.write(worker.session.send(Hello(VERSION, "w0")))
    assert worker.pump.idle
    sent = worker.socket.take()
    assert b"w0" not in sent
    (message,) = server.receive(sent)
    assert isinstance(message, Hello)
    assert message.name == "w0"


def test_nothing_is_encrypted_for_a_socket_without_room(ends: tuple[End, End]) -> None:
    server, worker = ends
    shake_hands(server, worker)
    worker.socket.room = False
    worker.pump.write([np.zeros(1 << 16, np.uint8).data])
    before = worker.pump.idle, worker.socket.take()
    worker.socket.room = True
    worker.pump.pump()
    assert (before, worker.pump.idle) == ((False, b""), True)
    assert len(worker.socket.take()) > 1 << 16


def test_what_waits_can_be_dropped(ends: tuple[End, End]) -> None:
    server, worker = ends
    shake_hands(server, worker)
    worker.socket.room = False
    worker.pump.write([b"never sent"])
    worker.pump.drop()
    worker.socket.room = True
    worker.pump.pump()
    assert worker.socket.take() == b""


def test_a_peer_that_speaks_plaintext_is_recognised(ends: tuple[End, End]) -> None:
    server, _ = ends
    plain = b"".join(map(bytes, Session("worker", Ledger(), "w1").send(Hello(VERSION, "w1"))))
    with pytest.raises(PlaintextError):
        server.receive(plain)


def test_the_end_is_told_once_tls_is_open(ends: tuple[End, End]) -> None:
    server, worker = ends
    server.pump.end()
    assert server.socket.take() == b""
    shake_hands(server, worker)
    server.pump.end()
    assert server.socket.take()


def test_nothing_is_said_on_a_socket_that_is_closing(ends: tuple[End, End]) -> None:
    server, worker = ends
    server.socket.closing = True
    assert server.receive(worker.socket.take()) == []
    assert server.socket.take() == b""
