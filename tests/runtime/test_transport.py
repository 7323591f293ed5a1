"""Connecting: what is given up leaves nothing open."""

from __future__ import annotations

import asyncio
import contextlib
import ssl

from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.runtime.connection import Connection
from asyncdmtl.runtime.loop import run
from asyncdmtl.runtime.tls import Channel
from asyncdmtl.runtime.transport import connect


def test_who_gives_up_when_just_connected_does_not_wait() -> None:
    run(asyncio.wait_for(give_up_when_just_connected(), 10))  # on uvloop, where workers run


async def give_up_when_just_connected() -> None:
    ended = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while await reader.read(1 << 16):
                pass
        ended.set()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    def give_up(connection: Connection) -> None:
        connecting.cancel()

    async with server:
        connecting = asyncio.create_task(
            connect("127.0.0.1", port, lambda: Connection("worker", Ledger(), 60.0, on_open=give_up), 60.0)
        )
        await asyncio.wait([connecting])
        assert connecting.cancelled()
        await ended.wait()


async def test_who_gives_up_in_the_handshake_leaves_no_connection_open() -> None:
    greeted, ended = asyncio.Event(), asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        greeted.set()
        with contextlib.suppress(ConnectionError):
            while await reader.read(1 << 16):
                pass
        ended.set()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    def make() -> Connection:
        context = ssl.create_default_context()
        return Connection("worker", Ledger(), 60.0, tls=lambda: Channel(context, "127.0.0.1"))

    async with server:
        connecting = asyncio.create_task(connect("127.0.0.1", port, make, 60.0))
        await greeted.wait()
        connecting.cancel()
        await asyncio.wait([connecting])
        assert connecting.cancelled()
        async with asyncio.timeout(10):
            await ended.wait()
