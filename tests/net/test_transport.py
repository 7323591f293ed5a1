"""Connecting: an attempt that is given up leaves nothing open."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl
import threading
from typing import Any

import pytest

from asyncdmtl.errors import LinkError, PeerError
from asyncdmtl.net.connection import Connection
from asyncdmtl.net.event_loop import run
from asyncdmtl.net.tls import TLSChannel
from asyncdmtl.net.transport import connect, listen
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.protocol.messages.registry import Heartbeat
from asyncdmtl.server.admission import turn_away


class Silent:
    """A server that reads and never answers; it sets `greeted` and `ended` by what its peer does."""

    def __init__(self) -> None:
        self.greeted, self.ended = asyncio.Event(), asyncio.Event()

    async def __aenter__(self) -> Silent:
        self._server = await asyncio.start_server(self._read, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while await reader.read(1 << 16):
                self.greeted.set()
        self.ended.set()
        writer.close()


def test_an_attempt_that_is_cancelled_when_just_connected_ends_at_once() -> None:
    run(asyncio.wait_for(give_up_when_just_connected(), 10))  # on uvloop, where workers run


async def give_up_when_just_connected() -> None:
    def give_up(connection: Connection) -> None:
        connecting.cancel()

    def make() -> Connection:
        return Connection("worker", Ledger(), 60.0, on_open=give_up)

    async with Silent() as server:
        connecting = asyncio.create_task(connect("127.0.0.1", server.port, make, 60.0))
        await asyncio.wait([connecting])
        assert connecting.cancelled()
        await server.ended.wait()


async def test_an_attempt_that_is_cancelled_in_the_handshake_leaves_no_connection_open() -> None:
    def make() -> Connection:
        context = ssl.create_default_context()
        return Connection("worker", Ledger(), 60.0, tls=lambda: TLSChannel(context, "127.0.0.1"))

    async with Silent() as server:
        connecting = asyncio.create_task(connect("127.0.0.1", server.port, make, 60.0))
        await server.greeted.wait()
        connecting.cancel()
        await asyncio.wait([connecting])
        assert connecting.cancelled()
        async with asyncio.timeout(10):
            await server.ended.wait()


def connection() -> Connection:
    return Connection("worker", Ledger(), 60.0)


def resolve(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Resolve every name to these addresses."""
    lookup = socket.getaddrinfo

    def found(host: str, port: int, **options: Any) -> list[Any]:
        return [entry for address in addresses for entry in lookup(address, port, **options)]

    monkeypatch.setattr("asyncdmtl.net.transport.socket.getaddrinfo", found)


def test_a_dead_first_address_does_not_hold_up_the_second(monkeypatch: pytest.MonkeyPatch) -> None:
    # A full backlog does not answer: a connection to it waits, like one to a host that is switched off.
    with socket.create_server(("127.0.0.2", 0), backlog=0) as dead, contextlib.ExitStack() as stack:
        port = dead.getsockname()[1]
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(("127.0.0.2", port))
        resolve(monkeypatch, "127.0.0.2", "127.0.0.1")

        async def reach() -> str:
            server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", port)
            async with server, asyncio.timeout(30):
                made = await connect("twice.example", port, connection, 20.0)
                peer = made.peer
                await made.close()
                return str(peer)

        assert "127.0.0.1" in run(reach())


def test_a_name_without_address_is_told() -> None:
    with pytest.raises(
        LinkError, match=r"cannot reach a server at nowhere\.invalid:7: the name 'nowhere\.in"
    ):
        run(connect("nowhere.invalid", 7, connection, 0.0))


def test_a_wait_for_a_server_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("asyncdmtl.net.transport.TELL_AFTER", 0.0)
    with pytest.raises(LinkError, match="gave up"):
        run(connect("nowhere.invalid", 7, connection, 0.3))
    (line,) = caplog.messages
    assert line.startswith("no server at nowhere.invalid:7 yet (the name")
    assert line.endswith("waiting for it up to 0.3 s (--max-wait)")


def test_a_name_server_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = threading.Event()
    monkeypatch.setattr(
        "asyncdmtl.net.transport.socket.getaddrinfo", lambda *words, **more: answer.wait(30) and []
    )

    async def reach() -> None:
        try:
            with pytest.raises(LinkError, match=r"no name server answered for 'slow\.example'"):
                await connect("slow.example", 7, connection, 0.2)
        finally:
            answer.set()

    run(reach())


async def test_a_peer_that_refuses_at_once_says_so_on_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is there, so that whoever made it reads whether to come back."""

    def refuse(accepted: Connection) -> None:
        turn_away(accepted, back=True)

    secured = Connection.secured

    async def late(made: Connection) -> None:
        while made.failure is None:
            await made.inbox.changed()
        await secured(made)

    monkeypatch.setattr(Connection, "secured", late)
    accept = functools.partial(Connection, "server", Ledger(), 600.0, on_open=refuse)
    async with asyncio.timeout(600.0), await listen("127.0.0.1", 0, accept) as listener:
        host, port = listener.sockets[0].getsockname()[:2]
        made = await connect(host, port, connection, 600.0)
        with pytest.raises(PeerError, match="the server takes no workers now"):
            made.write(Heartbeat())
        assert made.worker_may_return
        await made.close()
