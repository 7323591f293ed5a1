from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sized
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from asyncdmtl.errors import PeerError, RemoteProtocolError
from asyncdmtl.exchange.blocks import MOST_BYTES
from asyncdmtl.net.authentication import greet_server
from asyncdmtl.net.connection import Connection
from asyncdmtl.net.peer_keys import peer_key
from asyncdmtl.net.transport import connect
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.protocol.messages.registry import VERSION, AskRows, GiveRows, Hello, PeerReport
from asyncdmtl.worker.peer_server import KEPT_ROUNDS, MOST_EARLY, MOST_UNREAD, PeerServer

SECRET = bytes(range(32))
VECTORS = {0: np.arange(10, dtype=np.uint8), 3: np.arange(10, 30, dtype=np.uint8)}


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[PeerServer, int]]:
    server = PeerServer("run", "w0", SECRET, 5.0, Ledger())
    port = await server.open("127.0.0.1", 0, None)
    try:
        async with asyncio.timeout(20):
            yield server, port
    finally:
        await server.close()


async def greeted(port: int, key: bytes = peer_key(SECRET, "w1")) -> tuple[Connection, asyncio.Queue[Any]]:
    """A connection of worker w1, and the rows that come over it."""
    connection = await connect("127.0.0.1", port, lambda: Connection("worker", Ledger(), 5.0, "w0"), 5.0)
    await greet_server(connection, Hello(VERSION, "w1"), key, 5.0)
    rows: asyncio.Queue[Any] = asyncio.Queue()
    connection.on_peer_rows = rows.put_nowait
    connection.session.body_limit = 1000
    return connection, rows


async def noted(collection: Sized) -> None:
    """Wait until a server, which shows no event, has noted something in a collection."""
    while not collection:  # noqa: ASYNC110
        await asyncio.sleep(0)


async def test_a_block_is_given_to_a_worker_that_has_its_key() -> None:
    async with serving() as (server, port):
        server.give(0, 2, VECTORS)
        connection, rows = await greeted(port)
        connection.write(AskRows(0, 2, 3, 5, 9))
        given = await rows.get()
        assert isinstance(given, GiveRows)
        assert (given.plan, given.round, given.place) == (0, 2, (3, 5, 9))
        assert given.body.tolist() == [15, 16, 17, 18]
        await connection.close()


async def test_a_worker_without_the_key_is_refused() -> None:
    async with serving() as (_, port):
        with pytest.raises(PeerError, match="did not prove that it knows the secret"):
            await greeted(port, peer_key(SECRET, "w2"))


async def test_blocks_are_given_once_they_are_there_and_two_rounds_are_kept() -> None:
    async with serving() as (server, port):
        connection, rows = await greeted(port)
        connection.write(AskRows(0, 1, 0, 0, 4))
        server.give(0, 0, VECTORS)
        await noted(server._early)
        server.give(0, 1, {0: VECTORS[0] + 1})
        assert (await rows.get()).body.tolist() == [1, 2, 3, 4]
        server.give(0, 2, {0: VECTORS[0] + 2})
        for round_, expected in ((1, [1, 2]), (2, [2, 3]), (0, [])):
            connection.write(AskRows(0, round_, 0, 0, 2))
            assert (await rows.get()).body.tolist() == expected
        await connection.close()


async def test_a_worker_has_one_connection() -> None:
    async with serving() as (server, port):
        first, _ = await greeted(port)
        await noted(server._peers)
        second, _ = await greeted(port)
        await first.link.closed.wait()
        assert not second.lost
        while len(server._peers) > 1:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert list(server._peers.values()) == ["w1"]


async def test_a_worker_that_asks_without_end_is_left() -> None:
    async with serving() as (server, port):
        server.give(0, 1, VECTORS)
        connection, _ = await greeted(port)
        for _ in range(MOST_EARLY + KEPT_ROUNDS * len(VECTORS) + 1):
            connection.write(AskRows(0, 0, 0, 0, 1))
        await connection.link.closed.wait()
        assert "blocks were asked for, there are 2" in str(connection.failure)


async def test_what_is_asked_for_beside_a_failure_has_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as (server, port):
        server.give(0, 2, VECTORS)
        connection, _ = await greeted(port)
        # Both arrive together, and the failure closes the session before the first message is answered.
        connection.write(AskRows(0, 2, 3, 5, 9))
        await connection.fail(RemoteProtocolError("over"))
    assert "may not send" not in caplog.text


async def test_a_worker_that_does_not_read_what_it_asked_for_is_left() -> None:
    async with serving() as (server, _):
        server.give(0, 0, VECTORS)
        connection = Mock()
        connection.link.unsent_bytes.return_value = MOST_UNREAD + 1
        with pytest.raises(RemoteProtocolError, match="those before were not read"):
            server._on_rows(connection, AskRows(0, 0, 0, 0, 1))
        connection.write.assert_not_called()


async def test_workers_that_are_not_in_the_plan_any_more_are_left() -> None:
    async with serving() as (server, port):
        connection, _ = await greeted(port)
        await noted(server._peers)
        server.keep_to({"w1"})
        assert server._peers
        server.keep_to({"w2"})
        await connection.link.closed.wait()
        assert connection.lost


@pytest.mark.parametrize(
    "asked",
    [
        [AskRows(0, 0, 0, 5, 11)],
        [AskRows(0, 0, 1, 0, 1)],
        [PeerReport(0, 0)],
        [AskRows(0, 1, 0, 0, 1)] * (MOST_EARLY + 1),
        [AskRows(0, 0, 0, 0, MOST_BYTES + 1)],
    ],
    ids=["beyond the end", "another vector", "another message", "too early", "too long"],
)
async def test_what_breaks_a_rule_ends_the_connection(asked: list[Any]) -> None:
    async with serving() as (server, _):
        server.give(0, 0, VECTORS)
        connection: Any = Connection("server", Ledger(), 5.0)
        *earlier, last = asked
        for message in earlier:
            server._on_rows(connection, message)
        with pytest.raises(RemoteProtocolError):
            server._on_rows(connection, last)
