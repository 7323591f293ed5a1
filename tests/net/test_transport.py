"""Connecting: what is given up leaves nothing open."""

from __future__ import annotations

import asyncio
import contextlib
import ssl

from asyncdmtl.net.connection import Connection
from asyncdmtl.net.event_loop import run
from asyncdmtl.net.tls import TLSChannel
from asyncdmtl.net.transport import connect
from asyncdmtl.protocol.ledger import Ledger


class Silent:
    """A server that reads and never answers: `greeted` when something came, `ended` when a connection did."""

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


def test_who_gives_up_when_just_connected_does_not_wait() -> None:
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


async def test_who_gives_up_in_the_handshake_leaves_no_connection_open() -> None:
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
