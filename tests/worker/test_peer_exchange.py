from __future__ import annotations

from typing import Any

import pytest

from asyncdmtl.errors import RemoteProtocolError
from asyncdmtl.net.connection import Connection
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.protocol.messages.registry import Assign, Listen, Listens
from asyncdmtl.worker.options import NO_PEERS, WorkerOptions
from asyncdmtl.worker.peer_exchange import PeerExchange
from asyncdmtl.worker.state import WorkerState


def make_exchange(peer_listen: str) -> PeerExchange:
    state = WorkerState("w0")
    state.enter("run")
    connection = Connection("worker", Ledger(), 5.0, "w0")
    return PeerExchange(connection, WorkerOptions("w0", peer_listen=peer_listen), state, Listen(bytes(32)))


async def listened(peer_listen: str) -> Listens:
    exchange = make_exchange(peer_listen)
    try:
        return await exchange.listen()
    finally:
        await exchange.close()


async def test_a_worker_tells_where_it_listens() -> None:
    told = await listened("127.0.0.1:0")
    assert (told.host, told.certificate, told.reason) == ("127.0.0.1", b"", "")
    assert told.port > 0


async def test_a_worker_that_listens_nowhere_says_why() -> None:
    assert (await listened(NO_PEERS)).reason == "accepts no connections (--peer-listen none)"
    # An address of documentation (RFC 5737), which no host has.
    told = await listened("192.0.2.1:0")
    assert told.port == 0
    assert told.reason.startswith("cannot listen on 192.0.2.1:0")


async def test_a_plan_that_has_no_use_for_peers_is_refused() -> None:
    exchange = make_exchange("127.0.0.1:0")
    side: Any = type("Side", (), {"plan": None, "streams": False})()
    assign = Assign(0, 0, False, "keep", {}, bytes(16), (), shared=True)
    with pytest.raises(RemoteProtocolError, match="has no use for them"):
        await exchange.follow(assign, side)
    await exchange.follow(Assign(0, 0, False, "keep", {}, bytes(16), ()), side)
    assert not exchange.active
