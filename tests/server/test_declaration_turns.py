"""Turns over real sockets, with large heads of workers that a test controls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from support.peers import Peer

from asyncdmtl.arithmetic.probe import Machine
from asyncdmtl.learning.tasks import Declaration
from asyncdmtl.net.connection import Connection
from asyncdmtl.net.transport import listen
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.protocol.messages.registry import VERSION, Declare, DeclareSome, Hello, Welcome
from asyncdmtl.server import declaration_turns
from asyncdmtl.server.declaration_turns import DeclarationTurns

LIMIT = 20.0


class Turns:
    """Turns of workers that connect over the loopback."""

    def __init__(self) -> None:
        self.turns = DeclarationTurns(LIMIT)
        self.opened: asyncio.Queue[Connection] = asyncio.Queue()
        self.address = ("127.0.0.1", 0)

    def accept(self) -> Connection:
        return Connection("server", Ledger(), LIMIT, on_open=self.opened.put_nowait)

    async def welcome(self, name: str, peer: Peer) -> Connection:
        """The server's end of a connection whose worker may declare now."""
        connection = await self.opened.get()
        peer.say(Hello(VERSION, name, LIMIT))
        await connection.receive((Hello,), LIMIT, "")
        connection.write(Welcome("run", {}, LIMIT))
        await peer.hear(Welcome)
        return connection


@pytest.fixture
async def turns() -> AsyncIterator[Turns]:
    made = Turns()
    async with asyncio.timeout(LIMIT):
        socket = await listen("127.0.0.1", 0, made.accept)
        made.address = socket.sockets[0].getsockname()[:2]
        yield made
        socket.close()


def large() -> Declaration:
    """A declaration whose head arrives in several pieces."""
    return Declaration("p0", "t0", bytes(16), 4, {"columns": ["x" * 1000] * 400})


def declared(name: str, peer: Peer) -> None:
    peer.say(Declare((replace(large(), id=name),), machine=Machine.here("fast")))


def held(connection: Connection) -> asyncio.Event:
    """An event that is set once the connection waits for its turn."""
    event = asyncio.Event()
    link: Any = connection.link
    hold = link.hold

    def note(*, held: bool) -> None:
        hold(held=held)
        event.set()

    link.hold = note
    return event


async def test_a_large_declaration_waits_for_the_one_before(
    turns: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(declaration_turns, "MOST_BYTES", 1)
    connected = Peer.connected("w0", turns.address), Peer.connected("w1", turns.address)
    async with connected[0] as first, connected[1] as second:
        one, two = await turns.welcome("w0", first), await turns.welcome("w1", second)
        with turns.turns.turn(two):
            waits = held(two)
            with turns.turns.turn(one):
                first.say(DeclareSome((large(),)))
                await one.receive((DeclareSome,), LIMIT, "")
                declared("w1", second)
                await waits.wait()
                # The worker that came first goes on, however much it declares.
                declared("w0", first)
                await one.receive((Declare,), LIMIT, "")
                assert not two.inbox
            assert (await two.receive((Declare,), LIMIT, "")).partitions[0].id == "w1"
        await one.close()
        await two.close()


async def test_large_declarations_are_checked_one_at_a_time(turns: Turns) -> None:
    connected = Peer.connected("w0", turns.address), Peer.connected("w1", turns.address)
    async with connected[0] as first, connected[1] as second:
        one, two = await turns.welcome("w0", first), await turns.welcome("w1", second)
        with turns.turns.turn(one), turns.turns.turn(two):
            first.say(DeclareSome((large(),)))
            await one.receive((DeclareSome,), LIMIT, "")
            async with turns.turns.checking(one):
                # A small one does not wait.
                async with turns.turns.checking(two):
                    pass
                declared("w1", second)
                await two.receive((Declare,), LIMIT, "")
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.02), turns.turns.checking(two):
                        pass
            async with turns.turns.checking(two):
                pass
        await one.close()
        await two.close()


async def test_a_worker_that_waits_may_send_pieces(turns: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(declaration_turns, "MOST_BYTES", 1)
    turns.turns = DeclarationTurns(0.01)
    connected = Peer.connected("w0", turns.address), Peer.connected("w1", turns.address)
    async with connected[0] as first, connected[1] as second:
        one, two = await turns.welcome("w0", first), await turns.welcome("w1", second)
        with turns.turns.turn(one), turns.turns.turn(two):
            declared("w0", first)
            await one.receive((Declare,), LIMIT, "")
            waits = held(two)
            declared("w1", second)
            await waits.wait()
            await two.receive((Declare,), LIMIT, "")
        await one.close()
        await two.close()
