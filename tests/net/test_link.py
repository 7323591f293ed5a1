"""A link between a session and a socket that keeps what is written, until a test passes it on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.certificates import Authority
from support.messages import EXAMPLES, wire_bytes

from asyncdmtl.errors import AsyncDMTLError, AuthenticationError, CorruptionError
from asyncdmtl.net.link import HIGH_WATER_BYTES, Link
from asyncdmtl.net.tls import TLSChannel, server_context, worker_context
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.protocol.messages import registry
from asyncdmtl.protocol.messages.base import Message, Role
from asyncdmtl.protocol.messages.joining import VERSION, Hello
from asyncdmtl.protocol.session import Session

HELLO = wire_bytes(EXAMPLES["hello"])


class Socket:
    """The transport of a link."""

    def __init__(self, peer: Any = ("10.0.0.7", 4711)) -> None:
        self.written: list[Any] = []
        self.calls: list[str] = []
        self.high_water = 0
        self._names = {"peername": peer, "sockname": ("10.0.0.1", 7700)}

    def set_write_buffer_limits(self, high: int) -> None:
        self.high_water = high

    def get_extra_info(self, name: str) -> Any:
        return self._names.get(name)

    def get_write_buffer_size(self) -> int:
        return sum(len(buffer) for buffer in self.written)

    def is_closing(self) -> bool:
        return "close" in self.calls or "abort" in self.calls

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def writelines(self, buffers: Iterable[Any]) -> None:
        self.written += buffers

    def write_eof(self) -> None:
        self.calls.append("write_eof")

    def pause_reading(self) -> None:
        self.calls.append("pause")

    def resume_reading(self) -> None:
        self.calls.append("resume")

    def close(self) -> None:
        self.calls.append("close")

    def abort(self) -> None:
        self.calls.append("abort")

    def take(self) -> bytes:
        taken = b"".join(map(bytes, self.written))
        self.written.clear()
        return taken


class End:
    """The owner of a link, which notes what the link tells it."""

    peer = "worker 'w0' at 10.0.0.7:4711"

    def __init__(self, role: Role, tls: Callable[[], TLSChannel] | None = None) -> None:
        self.lost = False
        self.told: list[str] = []
        self.messages: list[Message] = []
        self.failures: list[tuple[AsyncDMTLError, bool, bool]] = []
        self.session = Session(role, Ledger(), "w0")
        self.link = Link(self.session, self, tls)
        self.socket = Socket()

    def opened(self) -> None:
        self.told.append("opened")

    def handshake_done(self) -> None:
        self.told.append("handshake done")

    def received(self, messages: list[Message]) -> None:
        self.messages += messages

    def link_failed(self, error: AsyncDMTLError, *, tell: bool = False, linger: bool = False) -> None:
        self.failures.append((error, tell, linger))

    def link_closed(self, reason: str) -> None:
        self.told.append(reason)

    def connect(self) -> None:
        transport: Any = self.socket
        self.link.connection_made(transport)

    def feed(self, data: bytes) -> None:
        """Let bytes arrive as the event loop does: as many as there is room for at a time."""
        while data and not self.failures:
            room = self.link.get_buffer(-1)
            piece, data = data[: len(room)], data[len(room) :]
            room[: len(piece)] = piece
            self.link.buffer_updated(len(piece))


def connected(role: Role = "server", tls: Callable[[], TLSChannel] | None = None) -> End:
    end = End(role, tls)
    end.connect()
    return end


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def encrypted(authority: Authority, trusted: Path | None = None) -> tuple[End, End]:
    """A server's and a worker's end with TLS, before the handshake."""
    server_tls = server_context(*authority.issue("10.0.0.7", "server.example"))
    worker_tls = worker_context(trusted or authority.ca)
    return (
        connected("server", lambda: TLSChannel(server_tls, None)),
        connected("worker", lambda: TLSChannel(worker_tls, "10.0.0.7")),
    )


def pass_on(server: End, worker: End) -> None:
    """Pass on what both ends write until neither writes any more."""
    while (up := worker.socket.take()) + (down := server.socket.take()):
        server.feed(up)
        worker.feed(down)


async def test_a_link_knows_both_addresses_once_it_is_made() -> None:
    end = End("server")
    link = end.link
    assert (link.made, link.open, link.local, link.host, link.address) == (False, False, "", "?", "?")
    assert link.unsent_bytes() == 0
    end.connect()
    assert (link.made, link.open, link.local) == (True, True, "10.0.0.1")
    assert (link.host, link.address) == ("10.0.0.7", "10.0.0.7:4711")
    assert end.told == ["opened"]
    assert end.socket.high_water == HIGH_WATER_BYTES == 1 << 20
    assert link.secured.is_set()
    assert (link.binding, link.certified, link.may_tell) == (b"", (), True)


async def test_a_peer_without_an_address_is_named_as_the_transport_names_it() -> None:
    end = End("server")
    end.socket = Socket("/run/socket")
    end.connect()
    assert (end.link.host, end.link.address) == ("/run/socket", "/run/socket")


async def test_received_bytes_become_messages() -> None:
    end = connected()
    nothing = [end.link.nothing_received]
    end.feed(HELLO[:5])
    nothing.append(end.link.nothing_received)
    assert nothing == [True, False]
    assert end.messages == []
    end.feed(HELLO[5:])
    (message,) = end.messages
    assert isinstance(message, Hello)
    assert message.name == "w0"


async def test_rows_are_written_without_a_copy() -> None:
    end, rows = connected(), np.arange(1000, dtype=np.uint8).data
    end.link.write([b"head", rows])
    assert end.socket.written[1] is rows
    assert end.link.unsent_bytes() == 1004
    end.link.abort()
    assert end.link.unsent_bytes() == 0


async def test_a_full_socket_is_waited_for() -> None:
    end = connected()
    drained = [end.link.drained]
    end.link.pause_writing()
    drained.append(end.link.drained)
    waiting = asyncio.create_task(end.link.writable())
    await asyncio.sleep(0)
    assert not waiting.done()
    end.link.resume_writing()
    await waiting
    assert [*drained, end.link.drained] == [True, False, True]


async def test_a_link_that_is_released_keeps_no_task_waiting(authority: Authority) -> None:
    server, _ = encrypted(authority)
    server.link.pause_writing()
    server.link.release()
    await server.link.writable()
    await server.link.secured.wait()


async def test_a_damaged_frame_fails_the_link_and_the_peer_is_told() -> None:
    end, damaged = connected(), bytearray(HELLO)
    damaged[20] ^= 1
    end.feed(bytes(damaged))
    ((error, tell, linger),) = end.failures
    assert isinstance(error, CorruptionError)
    assert str(error).startswith(f"{end.peer}: ")
    assert "does not match its check" in str(error)
    assert (tell, linger) == (True, False)


async def test_bytes_that_come_after_a_failure_are_dropped() -> None:
    end = connected()
    end.lost = True
    end.feed(HELLO)
    assert not end.messages
    assert not end.failures


@pytest.mark.parametrize(("begun", "fails"), [(b"", False), (HELLO[:-1], True), (HELLO, False)])
async def test_an_end_within_a_frame_fails_the_link(begun: bytes, fails: bool) -> None:
    end = connected()
    end.feed(begun)
    end.link.eof_received()
    assert [(str(error), tell) for error, tell, _ in end.failures] == fails * [
        (f"{end.peer}: the connection ended within a frame", False)
    ]


@pytest.mark.parametrize(
    ("cause", "reason"), [(None, "the peer closed it"), (ConnectionResetError("reset"), "reset")]
)
async def test_a_closed_link_says_why(cause: Exception | None, reason: str) -> None:
    end = connected()
    assert not end.link.closed.is_set()
    end.link.connection_lost(cause)
    assert end.told == ["opened", reason]
    assert end.link.closed.is_set()


@pytest.mark.parametrize(("linger", "call"), [(True, "write_eof"), (False, "close")])
async def test_a_link_hangs_up_at_once_or_when_the_peer_has_read(linger: bool, call: str) -> None:
    end = connected()
    end.link.hang_up(linger=linger)
    assert end.socket.calls == [call]


async def test_a_link_that_is_not_open_is_left_alone() -> None:
    end = End("worker")
    end.link.hang_up(linger=False)
    end.link.abort()
    end.connect()
    end.link.abort()
    end.link.hang_up(linger=True)
    assert end.socket.calls == ["abort"]
    assert not end.link.open


async def test_the_kernel_counts_only_real_sockets() -> None:
    assert connected().link.kernel_count() is None


async def test_tls_secures_both_ends(authority: Authority) -> None:
    server, worker = encrypted(authority)
    assert not worker.link.secured.is_set()
    assert not worker.link.may_tell
    pass_on(server, worker)
    for end in (server, worker):
        assert end.told == ["opened", "handshake done"]
        assert end.link.secured.is_set()
        assert end.link.may_tell
        assert end.link.drained
    assert worker.link.binding == server.link.binding != b""
    assert worker.link.certified == ("server.example",)
    assert server.link.certified == ()
    worker.link.write(worker.session.send(Hello(VERSION, "w0")))
    sent = worker.socket.take()
    assert b"w0" not in sent
    server.feed(sent)
    (message,) = server.messages
    assert isinstance(message, Hello)


async def test_tls_writes_what_waits_once_the_socket_has_room(authority: Authority) -> None:
    server, worker = encrypted(authority)
    pass_on(server, worker)
    worker.link.pause_writing()
    worker.link.write(worker.session.send(Hello(VERSION, "w0")))
    before = worker.link.drained, worker.link.may_tell, worker.socket.take()
    worker.link.resume_writing()
    assert before == (False, False, b"")
    assert worker.link.drained
    server.feed(worker.socket.take())
    assert len(server.messages) == 1


async def test_what_waits_in_tls_is_dropped_when_the_link_hangs_up(authority: Authority) -> None:
    server, worker = encrypted(authority)
    pass_on(server, worker)
    worker.link.pause_writing()
    worker.link.write(worker.session.send(Hello(VERSION, "w0")))
    worker.link.hang_up(linger=True)
    assert worker.socket.calls == ["write_eof"]
    # The end of TLS is told to the peer, and nothing else.
    server.feed(worker.socket.take())
    assert server.messages == []
    assert server.failures == []


async def test_a_certificate_that_is_not_accepted_is_told_to_the_peer(
    authority: Authority, tmp_path: Path
) -> None:
    server, worker = encrypted(authority, Authority(tmp_path / "other").ca)
    server.feed(worker.socket.take())
    worker.feed(server.socket.take())
    ((error, _, linger),) = worker.failures
    assert isinstance(error, AuthenticationError)
    assert "is not accepted" in str(error)
    assert linger
    # The alert of TLS is on its way to the server.
    server.feed(worker.socket.take())
    assert isinstance(server.failures[0][0], AuthenticationError)
    assert not server.link.secured.is_set()


@pytest.mark.parametrize(
    ("role", "reason", "told"),
    [
        ("server", "does not speak TLS, which this server does: --tls-ca", True),
        ("worker", "does not speak TLS, which --tls-ca asks for", False),
    ],
)
async def test_a_peer_that_speaks_plaintext_is_refused(
    authority: Authority, role: Role, reason: str, told: bool
) -> None:
    end = encrypted(authority)[role == "worker"]
    end.feed(HELLO)
    ((error, tell, _),) = end.failures
    assert isinstance(error, AuthenticationError)
    assert str(error) == f"{end.peer} {reason}"
    assert tell is told
    # A server tells it in plaintext, which the peer can read.
    assert end.link.may_tell is told


async def test_nothing_is_received_while_a_large_head_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    reading: list[Any] = []
    monkeypatch.setattr("asyncdmtl.net.link.read_large", lambda frame, done: reading.append((frame, done)))
    monkeypatch.setattr("asyncdmtl.protocol.session.LARGE_HEAD_BYTES", 10)
    end = connected()
    end.feed(HELLO)
    ((frame, done),) = reading
    assert end.messages == []
    assert end.socket.calls == ["pause"]
    end.link.hold(held=True)
    done(lambda: registry.unpack(frame.head, frame.body))
    assert [type(message) for message in end.messages] == [Hello]
    assert end.socket.calls[-1] == "pause"
    end.link.hold(held=False)
    assert end.socket.calls[-1] == "resume"


async def test_a_link_that_hangs_up_reads_on_and_forgets_its_large_head(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reading: list[Any] = []
    monkeypatch.setattr("asyncdmtl.net.link.read_large", lambda frame, done: reading.append((frame, done)))
    monkeypatch.setattr("asyncdmtl.protocol.session.LARGE_HEAD_BYTES", 10)
    end = connected()
    end.feed(HELLO)
    end.lost = True
    end.link.hang_up(linger=True)
    assert end.socket.calls == ["pause", "resume", "write_eof"]
    frame, done = reading[0]
    done(lambda: registry.unpack(frame.head, frame.body))
    assert end.messages == []
