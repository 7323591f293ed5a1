"""A server's and a worker's end of one connection over the loopback, which a test controls."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable

from asyncdmtl.net.connection import Connection
from asyncdmtl.net.tls import TLSChannel
from asyncdmtl.net.transport import connect, listen
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.protocol.messages.joining import VERSION, Declare, Hello, Prepare, Ready, Welcome
from asyncdmtl.protocol.messages.rounds import Assign

SILENCE = 30.0
LIMIT = (10.0, "--round-timeout")

# The most bytes of rows that either end accepts in one message, once both are in the first round.
BODY_LIMIT = 1 << 20


@contextlib.asynccontextmanager
async def pair(
    server_tls: ssl.SSLContext | None = None,
    worker_tls: ssl.SSLContext | None = None,
    silence: float = SILENCE,
) -> AsyncIterator[tuple[Connection, Connection]]:
    """A server's and a worker's end of one connection."""
    opened: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()

    def make(role: str, tls: ssl.SSLContext | None, name: str | None) -> Callable[[], Connection]:
        channel = None if tls is None else lambda: TLSChannel(tls, name)
        on_open = opened.set_result if role == "server" else None
        return lambda: Connection(role, Ledger(), silence, "w0", on_open, channel)  # type: ignore[arg-type]

    server = await listen("127.0.0.1", 0, make("server", server_tls, None))
    try:
        port = server.sockets[0].getsockname()[1]
        worker = await connect("127.0.0.1", port, make("worker", worker_tls, "127.0.0.1"), 5.0)
        at_server = await opened
        try:
            yield at_server, worker
        finally:
            for end in (at_server, worker):
                await end.close()
    finally:
        server.close()


async def join(server: Connection, worker: Connection) -> None:
    """Bring both ends to the first round."""
    for sender, message in (
        (worker, Hello(VERSION, "w0", SILENCE)),
        (server, Welcome("run", {}, SILENCE)),
        (worker, Declare(())),
        (server, Prepare({})),
        (worker, Ready(())),
        (server, Assign(0, 0, False, "keep", {}, bytes(16), ())),
    ):
        receiver = server if sender is worker else worker
        await sender.send(message, *LIMIT)
        assert isinstance(await receiver.receive((type(message),), *LIMIT), type(message))
    server.session.body_limit = worker.session.body_limit = BODY_LIMIT
