"""Attacks of `tools/attack.py` on what some runs have: rows between workers, late rows, blind servers.

Others flood the server or another worker with messages that the protocol permits at any time. As in
`attacks`, each changes the worker of one process.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from planting import HONEST, put_in, send_unchecked

from asyncdmtl.exchange.blocks import ASKED_OF_A_PEER
from asyncdmtl.exchange.upload import Upload
from asyncdmtl.net.connection import Connection
from asyncdmtl.protocol.framing import encode_frame
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.protocol.messages.liveness import Heartbeat
from asyncdmtl.protocol.messages.peers import MAX_PEERS, AskRows, GiveRows, PeerReport, RowsLacking
from asyncdmtl.protocol.messages.registry import Declare
from asyncdmtl.worker import joining
from asyncdmtl.worker.participation import Participation
from asyncdmtl.worker.peer_client import PeerClient, PeerLink
from asyncdmtl.worker.peer_exchange import PeerExchange
from asyncdmtl.worker.peer_server import PeerServer
from asyncdmtl.worker.state import WorkerState

# Messages of a flood in each round, and connections that are opened to each other worker.
FLOOD, CONNECTIONS = 200_000, 400

# Seconds by which an attacker is late.
LATE = 0.3


def _each_round(act: Callable[[Participation], None]) -> None:
    """Call a function before each upload but the first ones."""
    send = Participation._send_round

    async def sent(part: Participation) -> Any:
        if part._state.round >= HONEST:
            act(part)
        return await send(part)

    put_in(Participation, "_send_round", sent)


def heartbeats() -> None:
    """Send hundreds of thousands of heartbeats in each round."""
    _each_round(lambda part: send_unchecked(part._connection, [Heartbeat()], FLOOD))


def bent_heads() -> None:
    """Send a head that is deeply nested and large."""
    depth = 1 << 20

    def act(part: Participation) -> None:
        head = b"\x92\x1e" + b"\x91" * depth + b"\x90"
        if not part._connection.lost:
            part._connection.link.write([bytes(each) for each in encode_frame(head)[0]])

    _each_round(act)


def late() -> None:
    """Be late in every round, and tell other digests then."""
    send = Participation._send_round

    async def wait(part: Participation) -> Any:
        if part._state.round >= HONEST:
            compute = part._state.side.compute

            def forged() -> Upload:
                made = compute()
                return replace(made, digests=tuple(os.urandom(len(each)) for each in made.digests))

            part._state.side.compute = forged  # type: ignore[method-assign]
            await asyncio.sleep(LATE)
            try:
                return await send(part)
            finally:
                del part._state.side.compute
        return await send(part)

    put_in(Participation, "_send_round", wait)


def over() -> None:
    """Say that training is over."""
    apply = WorkerState.apply

    def applied(state: WorkerState, downlink: Any) -> None:
        apply(state, downlink)
        state.over = state.over or state.round >= HONEST

    put_in(WorkerState, "apply", applied)


def behind(names: Sequence[str]) -> Callable[[], None]:
    """Claim to be a relay with these workers behind it."""

    def plant() -> None:
        put_in(joining, "Declare", lambda *given: replace(Declare(*given), behind=tuple(names)))

    return plant


def lacking(times: int) -> Callable[[], None]:
    """Claim in each round to lack all rows, so many times."""

    def plant() -> None:
        receive = PeerExchange.receive

        async def lack(exchange: PeerExchange, round_: int, *given: Any) -> Any:
            send_unchecked(exchange._connection, [RowsLacking(exchange._plan, round_, "all are gone")], times)
            return await receive(exchange, round_, *given)

        put_in(PeerExchange, "receive", lack)

    return plant


def reports() -> None:
    """Report far more bytes from others than there are."""
    tell = PeerExchange._tell

    def lie(exchange: PeerExchange, message: PeerReport | RowsLacking) -> None:
        if isinstance(message, PeerReport):
            message = replace(message, received=((0, 2**53, 2**53),) * MAX_PEERS)
            send_unchecked(exchange._connection, [message])
            return
        tell(exchange, message)

    put_in(PeerExchange, "_tell", lie)


def gives(parts: str) -> Callable[[], None]:
    """Give other workers nothing that they ask for, empty rows, or each block after a second and a half."""

    def plant() -> None:
        answer = PeerServer._answer

        def lie(server: PeerServer, connection: Connection, ask: AskRows) -> None:
            if parts == "nothing":
                return
            if parts == "empty":
                connection.write(GiveRows(ask.plan, ask.round, *ask.place))
                return

            def late() -> None:
                if not connection.lost:
                    answer(server, connection, ask)

            asyncio.get_running_loop().call_later(1.5, late)

        put_in(PeerServer, "_answer", lie)

    return plant


def connections() -> None:
    """Open hundreds of connections to each other worker, and keep them."""
    begin, opened = PeerClient.begin, list[PeerLink]()

    def flood(client: PeerClient, *given: Any) -> None:
        if not opened:
            for name in client._order:
                peer = client._links[name].peer
                links = [PeerLink(peer, client._name, client._silence, Ledger()) for _ in range(CONNECTIONS)]
                for link in links:
                    link.open(lambda: None, lambda message: None)
                opened.extend(links)
        begin(client, *given)

    put_in(PeerClient, "begin", flood)


def asks() -> None:
    """Ask other workers for the same rows again and again, and read no answer."""
    begin, flooded = PeerClient.begin, set[PeerLink]()

    def flood(client: PeerClient, plan: int, round_: int, targets: Any) -> None:
        begin(client, plan, round_, targets)
        for name in client._order:
            link = client._links[name]
            if link.connection is None or link in flooded or round_ < HONEST:
                continue
            flooded.add(link)
            vector = next(v for v, held in client._sources.holders.items() if name in held)
            ask = AskRows(plan, round_, vector, 0, len(targets[vector]))
            send_unchecked(link.connection, [ask], FLOOD)
            transport: Any = link.connection.link._transport
            transport.pause_reading()

    put_in(PeerClient, "begin", flood)


def early_asks() -> None:
    """Ask for rows of later rounds that will never be made, over several connections."""
    begin = PeerClient.begin

    def flood(client: PeerClient, plan: int, round_: int, targets: Any) -> None:
        begin(client, plan, round_, targets)
        for name in client._order:
            connection = client._links[name].connection
            if connection is not None:
                send_unchecked(connection, [AskRows(plan + 5, 10**9, 0, 0, 1)], ASKED_OF_A_PEER * 4)

    put_in(PeerClient, "begin", flood)


def busy() -> None:
    """Stop this process for a moment in each round, so that it neither reads nor writes."""
    _each_round(lambda part: time.sleep(LATE))
