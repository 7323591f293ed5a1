from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from asyncdmtl.net.peer_keys import peer_key
from asyncdmtl.net.run_certificate import RunCertificate
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.protocol.messages.registry import GiveRows, Peer
from asyncdmtl.worker.peer_client import PeerClient
from asyncdmtl.worker.peer_server import PeerServer

SIZE = 3000
VECTORS = {n: np.random.default_rng(n).integers(0, 256, SIZE, np.uint8) for n in range(3)}


@asynccontextmanager
async def peers(
    holdings: dict[str, str], certificate: RunCertificate | None = None, seconds: float = 600.0
) -> AsyncIterator[tuple[PeerClient, dict[str, PeerServer], dict[str, Peer]]]:
    """A client, and servers that listen; `holdings` has the vectors of each, one digit for each."""
    client, servers, named = PeerClient("w0", 5.0, seconds), dict[str, PeerServer](), dict[str, Peer]()
    shown = b"" if certificate is None else certificate.certificate
    try:
        async with asyncio.timeout(20):
            for name in holdings:
                servers[name] = PeerServer("run", name, name.encode() * 16, 5.0, Ledger())
                port = await servers[name].open("127.0.0.1", 0, certificate)
                named[name] = Peer(name, "127.0.0.1", port, shown, peer_key(name.encode() * 16, "w0"))
            holders = {n: frozenset(name for name in holdings if str(n) in holdings[name]) for n in VECTORS}
            await client.follow(named.values(), {n: names for n, names in holders.items() if names})
            yield client, servers, named
    finally:
        await client.close()
        for server in servers.values():
            await server.close()


def targets(*numbers: int) -> dict[int, np.ndarray[tuple[int], np.dtype[np.uint8]]]:
    return {n: np.zeros(SIZE, np.uint8) for n in numbers}


async def until(client: PeerClient, *, lacking: bool = False) -> None:
    while not (client.lacking if lacking else client.complete):
        client.changed.clear()
        await client.changed.wait()


@pytest.mark.parametrize("encrypted", [False, True])
async def test_vectors_come_from_those_that_hold_them(
    monkeypatch: pytest.MonkeyPatch, *, encrypted: bool
) -> None:
    monkeypatch.setattr("asyncdmtl.exchange.blocks.FEWEST_BYTES", 100)
    certificate = RunCertificate.make("127.0.0.1") if encrypted else None
    async with peers({"w1": "01", "w2": "12"}, certificate) as (client, servers, _):
        for round_ in range(2):
            wanted = targets(0, 1, 2)
            client.begin(0, round_, wanted)
            for name, held in (("w1", (0, 1)), ("w2", (1, 2))):
                servers[name].give(0, round_, {n: VECTORS[n] + np.uint8(round_) for n in held})
            await until(client)
            for n, vector in wanted.items():
                np.testing.assert_array_equal(vector, VECTORS[n] + np.uint8(round_))
            rows = {name: sizes[0] for name, sizes in client.received.items()}
            assert sum(rows.values()) == 3 * SIZE
            assert min(rows.values()) >= SIZE
            assert all(framing > 0 for _, framing in client.received.values())
            assert not client.lacking


async def test_a_peer_that_cannot_be_reached_is_told_if_nobody_else_has_its_vectors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("asyncdmtl.worker.peer_client.REACH_SECONDS", 0.05)
    async with peers({"w1": "01", "w2": "1"}) as (client, servers, named):
        await servers["w1"].close()
        servers["w2"].give(0, 0, {1: VECTORS[1]})
        client.begin(0, 0, targets(1))
        await until(client)
        assert not client.lacking
        client.begin(0, 1, targets(0, 1))
        await until(client, lacking=True)
        assert client.lacking == f"cannot reach worker 'w1' at 127.0.0.1:{named['w1'].port}"


@pytest.mark.parametrize("answer", ["nothing", "empty"])
async def test_a_peer_that_gives_nothing_is_told_if_nobody_else_has_its_vectors(answer: str) -> None:
    async with peers({"w1": "0", "w2": "1"}, seconds=0.2) as (client, servers, _):
        servers["w2"].give(0, 0, {1: VECTORS[1]})
        if answer == "empty":
            # Rows of this round are forgotten, it says.
            servers["w1"].give(0, 1, {0: VECTORS[0]})
        client.begin(0, 0, targets(0, 1))
        await until(client, lacking=True)
        assert re.fullmatch(r"worker 'w1' did not give its rows within \d\S* s", client.lacking)
        for name in servers:
            servers[name].give(0, 2, {n: VECTORS[n] for n in (0, 1)})
        client.begin(0, 2, wanted := targets(0))
        await until(client)
        np.testing.assert_array_equal(wanted[0], VECTORS[0])


async def test_a_link_that_is_lost_is_opened_again_in_the_next_round() -> None:
    async with peers({"w1": "0"}) as (client, servers, _):
        servers["w1"].give(0, 0, {0: VECTORS[0]})
        client.begin(0, 0, targets(0))
        await until(client)
        client.begin(0, 1, targets(0))
        servers["w1"].keep_to(())
        await until(client, lacking=True)
        assert client.lacking.startswith("lost worker 'w1'")
        servers["w1"].give(0, 2, {0: VECTORS[0]})
        client.begin(0, 2, targets(0))
        await until(client)


async def test_nobody_is_asked_any_more_while_connections_are_closed() -> None:
    async with peers({"w1": "0", "w2": "1"}) as (client, servers, _):
        servers["w1"].give(0, 0, VECTORS)
        client.begin(0, 0, targets(0, 1))
        while any(link.connection is None for link in client._links.values()) or not client.received:
            client.changed.clear()
            await client.changed.wait()
        await client.close()
        client._ask()
        assert client._retry is None


async def test_nobody_is_asked_while_connections_to_the_peers_of_the_plan_before_are_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with peers({"w1": "0", "w2": "0"}) as (client, servers, named):
        client.begin(0, 0, targets(0))
        while any(link.connection is None for link in client._links.values()):
            client.changed.clear()
            await client.changed.wait()
        link, closing, gate = client._links["w1"], asyncio.Event(), asyncio.Event()
        close = link.close

        async def slowly() -> None:
            closing.set()
            await gate.wait()
            await close()

        monkeypatch.setattr(link, "close", slowly)
        following = asyncio.create_task(client.follow([named["w2"]], {0: frozenset({"w2"})}))
        await closing.wait()
        assert client._retry is None
        # Rows that come meanwhile are of no use, and ask for nothing.
        client._on_rows("w1", GiveRows(0, 0, 0, 0, SIZE, (VECTORS[0],)))
        client._ask()
        assert client._retry is None
        gate.set()
        await following
        servers["w2"].give(1, 0, {0: VECTORS[0]})
        client.begin(1, 0, wanted := targets(0))
        await until(client)
        np.testing.assert_array_equal(wanted[0], VECTORS[0])


async def test_a_peer_that_gives_rows_unasked_is_lost() -> None:
    async with peers({"w1": "0"}) as (client, servers, _):
        servers["w1"].give(0, 0, {0: VECTORS[0]})
        client.begin(0, 0, targets(0))
        await until(client)
        (connection,), lost = servers["w1"]._peers, asyncio.Event()
        connection.on_lost = lost.set
        connection.write(GiveRows(0, 0, 0, 0, SIZE, (VECTORS[0],)))
        await lost.wait()
        assert client.received["w1"][0] == SIZE
        assert "rows came that were not asked for" in str(connection.failure)


async def test_peers_of_a_new_plan_replace_those_before() -> None:
    async with peers({"w1": "0", "w2": "0"}) as (client, servers, named):
        servers["w1"].give(0, 0, {0: VECTORS[0]})
        servers["w2"].give(1, 0, {0: VECTORS[0]})
        client.begin(0, 0, targets(0))
        await until(client)
        await client.follow([named["w2"]], {0: frozenset({"w1", "w2"})})
        assert client.complete
        client.begin(1, 0, targets(0))
        await until(client)
        assert set(client.received) == {"w2"}


async def test_short_vectors_come_from_the_peers_whose_share_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("LATE_SECONDS", "UNKNOWN_SECONDS"):
        monkeypatch.setattr(f"asyncdmtl.exchange.blocks.{name}", 60.0)
    async with peers({"w1": "012", "w2": "012"}) as (client, servers, named):
        holders = dict.fromkeys(VECTORS, frozenset(named))
        await client.follow(named.values(), holders, dict.fromkeys(VECTORS, "w2"))
        for round_ in range(2):
            for server in servers.values():
                server.give(0, round_, VECTORS)
            client.begin(0, round_, targets(0, 1, 2))
            # In the first round, whoever is reached first gives.
            while any(link.connection is None for link in client._links.values()) or not client.complete:
                client.changed.clear()
                await client.changed.wait()
        assert {name: rows for name, (rows, _) in client.received.items()} == {"w2": 3 * SIZE}
        servers["w2"].keep_to(())
        client.begin(0, 2, wanted := targets(0, 1, 2))
        servers["w1"].give(0, 2, VECTORS)
        await until(client)
        np.testing.assert_array_equal(wanted[2], VECTORS[2])
