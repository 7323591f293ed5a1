"""Two connections with each other over the loopback interface."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from support.certificates import Authority
from support.messages import EXAMPLES, wire_bytes
from support.pairs import LIMIT, SILENCE, join, pair

from asyncdmtl.errors import (
    AuthenticationError,
    LinkError,
    LocalProtocolError,
    PeerError,
    RemoteProtocolError,
    WaitError,
)
from asyncdmtl.net import peer_monitor
from asyncdmtl.net.connection import Connection
from asyncdmtl.net.tls import server_context, worker_context
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.protocol.messages.base import Message
from asyncdmtl.protocol.messages.joining import VERSION, Declare, Hello, Prepare, Welcome
from asyncdmtl.protocol.messages.liveness import Heartbeat
from asyncdmtl.protocol.messages.multicast import LossQuery, MulticastControl
from asyncdmtl.protocol.messages.peers import PeerReport
from asyncdmtl.protocol.messages.rounds import Assign, Downlink, Uplink

ROWS = np.arange(200_000, dtype=np.uint32).view(np.uint8)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
async def test_rows_go_both_ways(authority: Authority, encrypted: bool) -> None:
    contexts = (
        (server_context(*authority.issue("127.0.0.1")), worker_context(authority.ca))
        if encrypted
        else (None, None)
    )
    async with pair(*contexts) as (server, worker):
        await join(server, worker)
        await worker.send(Uplink(0, 0, b"", ROWS), *LIMIT)
        up = await server.receive((Uplink,), *LIMIT)
        server.write(Downlink(0, 0, "go on", bytes(16), (up.body,)))
        down = await worker.receive((Downlink,), *LIMIT)
        await server.drain(*LIMIT)
        assert down.body.tobytes() == ROWS.tobytes()
        assert server.link.drained
        assert worker.link.unsent_bytes() == 0
        assert server.link.host == worker.link.local == "127.0.0.1"
        assert server.peer == f"worker 'w0' at {server.link.address}"
        assert worker.peer == f"the server at {worker.link.address}"
        if encrypted:
            assert len(worker.link.binding) >= 32
            assert worker.link.binding == server.link.binding
            assert "127.0.0.1" not in server.link.certified
        else:
            assert (worker.link.binding, worker.link.certified) == (b"", ())
        counts = server.link.kernel_count()
    if counts is not None:
        wire = sum(entry.wire for entry in server.session.ledger.entries() if entry.direction == "up")
        assert counts.received_bytes == wire
    assert not worker.link.open


async def test_messages_are_received_in_order_or_put_back() -> None:
    async with pair() as (server, worker):
        await join(server, worker)
        assert worker.inbox.take(Downlink) is None
        server.write(Assign(1, 0, False, "keep", {}, bytes(16), ()))
        assign = await worker.receive((Assign, Downlink), *LIMIT)
        worker.inbox.put_back(assign)
        assert worker.inbox.take(Assign) is assign


async def test_a_message_of_another_kind_than_is_due_ends_the_connection() -> None:
    async with pair() as (server, worker):
        await worker.send(Hello(VERSION, "w0"), *LIMIT)
        with pytest.raises(RemoteProtocolError, match="sent hello where proof was due"):
            await server.receive((type(EXAMPLES["proof"]),), *LIMIT)
        with pytest.raises(PeerError, match="sent hello where proof was due"):
            await worker.receive((Welcome,), *LIMIT)
        assert server.lost
        assert worker.lost
        with pytest.raises(PeerError):
            worker.write(Declare(()))


async def test_this_end_may_not_break_the_protocol() -> None:
    async with pair() as (server, _):
        with pytest.raises(LocalProtocolError, match="may not send prepare when opened"):
            server.write(Prepare({}))
        assert not server.lost


async def test_waits_have_limits_that_name_their_option() -> None:
    async with pair() as (server, worker):
        with pytest.raises(WaitError, match=r"no hello or welcome came .* set by --join-timeout"):
            await server.receive((Hello, Welcome), 0.02, "--join-timeout")
        assert not server.lost
        # The other end stops reading, and the kernel's buffers fill.
        worker.link._transport.pause_reading()  # type: ignore[union-attr]
        await join_without_reading(server)
        with pytest.raises(WaitError, match=r"did not take what it was sent .* set by --round-timeout"):
            await server.drain(0.1, "--round-timeout")
        assert isinstance(server.failure, WaitError)


async def join_without_reading(server: Connection) -> None:
    """Write far more bytes than sockets hold, without regard to the state of the protocol."""
    server.link.write([bytes(1 << 26)])


async def test_a_failure_is_told_with_its_exit_code_and_whether_the_worker_may_return() -> None:
    lost = []
    async with pair() as (server, worker):
        worker.on_lost = lambda: lost.append("worker")
        server.worker_may_return = True
        await server.fail(AuthenticationError("not this one"))
        with pytest.raises(PeerError, match="ended it: not this one") as caught:
            await worker.receive((Welcome,), *LIMIT)
        assert caught.value.exit_code == AuthenticationError.exit_code
        assert worker.worker_may_return
        assert lost == ["worker"]
        worker.link_failed(LinkError("too late", peer="w0"))
        assert isinstance(worker.failure, PeerError)
        assert lost == ["worker"]


async def test_a_connection_that_is_cut_off_is_lost() -> None:
    async with pair() as (server, worker):
        worker.abort()
        with pytest.raises(LinkError, match=r"the connection to worker '.*' at .* was lost"):
            await server.receive((Hello,), *LIMIT)


async def test_bytes_that_are_no_frame_end_the_connection() -> None:
    async with pair() as (server, worker):
        damaged = bytearray(wire_bytes(EXAMPLES["hello"]))
        damaged[20] ^= 1
        worker.link.write([bytes(damaged)])
        with pytest.raises(RemoteProtocolError, match="does not match its check"):
            await server.receive((Hello,), *LIMIT)
        with pytest.raises(PeerError, match="does not match its check"):
            await worker.receive((Welcome,), *LIMIT)
        # Bytes that were corrupted on the way are not the worker's fault.
        assert worker.worker_may_return


async def test_an_end_within_a_frame_is_an_error() -> None:
    async with pair() as (server, worker):
        worker.link.write([wire_bytes(EXAMPLES["hello"])[:-1]])
        worker.link.hang_up(linger=True)
        with pytest.raises(RemoteProtocolError, match="ended within a frame"):
            await server.receive((Hello,), *LIMIT)


async def test_messages_about_multicast_rows_are_handed_over_at_once() -> None:
    heard: list[MulticastControl] = []
    async with pair() as (server, worker):
        await join(server, worker)
        await worker.send(Uplink(0, 0, b"", ROWS[:0]), *LIMIT)
        await server.receive((Uplink,), *LIMIT)
        server.write(Downlink(0, 0, "go on", bytes(16), grouped=True))
        await worker.receive((Downlink,), *LIMIT)
        server.write(LossQuery(0, 0, 7))
        came = asyncio.Event()

        def hear(message: MulticastControl) -> None:
            heard.append(message)
            came.set()
            if len(heard) == 2:
                raise RemoteProtocolError("never asked for that")

        server.write(Assign(1, 1, False, "keep", {}, bytes(16), ()))
        await worker.receive((Assign,), *LIMIT)
        # Without a handler the first query was dropped.
        worker.on_multicast_control = hear
        for index in (1, 2):
            came.clear()
            server.write(LossQuery(1, 0, index))
            await asyncio.wait_for(came.wait(), 10)
        assert [message.index for message in heard] == [1, 2]
        with pytest.raises(PeerError, match="never asked for that"):
            await server.receive((Uplink,), *LIMIT)


async def test_a_silent_peer_is_given_up() -> None:
    async with pair(silence=0.1) as (server, worker):
        # Heartbeats begin with the welcome: until then both ends are silent.
        with pytest.raises(WaitError, match=r"nothing was heard from .* set by --silence-timeout"):
            await server.receive((Hello,), *LIMIT)
        with pytest.raises((WaitError, PeerError)):
            await worker.receive((Welcome,), *LIMIT)


async def test_heartbeats_keep_a_connection_alive() -> None:
    async with pair() as (server, worker):
        await worker.send(Hello(VERSION, "w0", 0.2), *LIMIT)
        await server.receive((Hello,), *LIMIT)
        await server.send(Welcome("run", {}, 0.2), *LIMIT)
        await worker.receive((Welcome,), *LIMIT)
        kinds = server.session.ledger.kinds()
        while ("up", "heartbeat") not in kinds or ("down", "heartbeat") not in kinds:
            await asyncio.sleep(0.01)
            kinds = server.session.ledger.kinds()
        assert not server.lost
        assert not worker.lost


@pytest.mark.parametrize("message", [Heartbeat(), PeerReport(0, 0)], ids=["heartbeat", "unheeded"])
async def test_a_peer_that_floods_this_end_with_heartbeats_is_left(
    monkeypatch: pytest.MonkeyPatch, message: Message
) -> None:
    monkeypatch.setattr(peer_monitor, "SPARE_HEARTBEATS", 5)
    async with pair() as (server, worker):
        await join(server, worker)
        await worker.send(Uplink(0, 0, b"", ROWS[:8]), *LIMIT)
        await server.receive((Uplink,), *LIMIT)
        await server.send(Downlink(0, 0, "go on", bytes(16)), *LIMIT)
        await worker.receive((Downlink,), *LIMIT)
        worker.link.write([wire_bytes(message) * 10_000])
        with pytest.raises(RemoteProtocolError, match="sends heartbeats without end"):
            await server.receive((Declare,), *LIMIT)


async def test_a_peer_that_speaks_tls_to_one_that_does_not(authority: Authority) -> None:
    with pytest.raises(AuthenticationError, match="does not speak TLS, which --tls-ca asks for"):
        async with pair(None, worker_context(authority.ca)):
            pass


async def test_a_peer_that_does_not_speak_tls_is_told_so_in_plaintext(authority: Authority) -> None:
    async with pair(server_context(*authority.issue("127.0.0.1"))) as (server, worker):
        await worker.send(Hello(VERSION, "w0"), *LIMIT)
        with pytest.raises(PeerError, match="does not speak TLS, which this server does"):
            await worker.receive((Welcome,), *LIMIT)
        assert isinstance(server.failure, AuthenticationError)
        with pytest.raises(AuthenticationError):
            await server.secured()


async def test_a_certificate_that_is_not_accepted_ends_both_ends(
    authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path)
    with pytest.raises(AuthenticationError, match=r"certificate of the server .* is not accepted"):
        async with pair(server_context(*authority.issue("127.0.0.1")), worker_context(stranger.ca)):
            pass


async def test_a_handshake_has_a_limit(authority: Authority) -> None:
    async with pair(server_context(*authority.issue("127.0.0.1")), silence=0.1) as (server, _):
        with pytest.raises(WaitError, match="--silence-timeout"):
            await server.secured()


async def test_a_connection_that_was_never_made_is_closed_without_a_wait() -> None:
    connection = Connection("worker", Ledger(), SILENCE)
    await connection.close()
    connection.abort()
    assert connection.link.kernel_count() is None
    assert connection.link.local == ""
