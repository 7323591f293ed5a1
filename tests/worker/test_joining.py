"""A worker joins a run over a real connection whose other end a test controls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
from support.groups import LOOPBACK, free_group
from support.messages import EXAMPLES
from support.pairs import LIMIT, SILENCE, pair
from support.problems import make_partitions, make_settings

from asyncdmtl.arithmetic.probe import Machine
from asyncdmtl.data.encoding import Encoding
from asyncdmtl.digests import Digest, answer
from asyncdmtl.errors import AuthenticationError, DataError, LinkError, RemoteProtocolError, WaitError
from asyncdmtl.multicast.datagrams import OVERHEAD, Stream
from asyncdmtl.multicast.sending import DatagramBlock
from asyncdmtl.net.connection import Connection
from asyncdmtl.net.udp import GroupSender
from asyncdmtl.protocol.messages.joining import (
    VERSION,
    Challenge,
    Declare,
    DeclareSome,
    Hello,
    Prepare,
    Ready,
    Welcome,
)
from asyncdmtl.protocol.messages.multicast import JoinedGroup, JoinGroup
from asyncdmtl.worker import multicast_client
from asyncdmtl.worker.joining import be_welcomed, declare_and_encode, join_group, read_settings
from asyncdmtl.worker.multicast_client import MulticastClient
from asyncdmtl.worker.options import WorkerOptions
from asyncdmtl.worker.own_partitions import OwnPartitions
from asyncdmtl.worker.state import WorkerState

SETTINGS = make_settings()
OPTIONS = WorkerOptions("w0", start_timeout=10.0, silence_timeout=SILENCE)
CHALLENGES = (bytes([1]) * 32, bytes([2]) * 16)
PREPARE = Prepare(Encoding.empty().as_dict(), CHALLENGES)
KEY, NONCE, PIECE_BYTES = bytes(32), bytes(16), 700


class Ends(NamedTuple):
    """Both ends of a connection."""

    server: Connection
    worker: Connection


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    async with pair() as (server, worker):
        yield Ends(server, worker)


async def welcomed(ends: Ends) -> WorkerState:
    """Bring both ends to the state in which the worker declares its partitions."""
    await ends.worker.send(Hello(VERSION, "w0", SILENCE), *LIMIT)
    await ends.server.receive((Hello,), *LIMIT)
    await ends.server.send(Welcome("run", SETTINGS.as_dict(), SILENCE), *LIMIT)
    await ends.worker.receive((Welcome,), *LIMIT)
    state = WorkerState("w0")
    state.enter("run")
    return state


async def ready(ends: Ends) -> WorkerState:
    """Bring both ends to the state in which the server may name a group."""
    state = await welcomed(ends)
    joining = asyncio.create_task(declare(ends, state))
    await ends.server.receive((Declare,), *LIMIT)
    await ends.server.send(PREPARE, *LIMIT)
    await joining
    await ends.server.receive((Ready,), *LIMIT)
    return state


async def declare(
    ends: Ends, state: WorkerState, partitions: OwnPartitions | None = None, **options: Any
) -> None:
    await declare_and_encode(
        ends.worker,
        WorkerOptions("w0", **options),
        SETTINGS,
        partitions or OwnPartitions(make_partitions(2, "squared")),
        state,
    )


async def test_a_worker_greets_with_its_name_and_what_silence_it_bears(ends: Ends) -> None:
    greeting = asyncio.create_task(be_welcomed(ends.worker, OPTIONS, None))
    hello = await ends.server.receive((Hello,), *LIMIT)
    assert (hello.version, hello.name, hello.silence) == (VERSION, "w0", SILENCE)
    await ends.server.send(Welcome("run", SETTINGS.as_dict(), SILENCE), *LIMIT)
    welcome = await greeting
    assert welcome.run == "run"
    assert read_settings(ends.worker, welcome) == SETTINGS


@pytest.mark.parametrize(
    ("secret", "answer", "reason"),
    [
        (b"secret", Welcome("run", {}, SILENCE), "does not ask for the secret that it should know"),
        (None, EXAMPLES["challenge"], "asks for a secret: give --secret-file"),
    ],
)
async def test_a_secret_that_one_end_alone_knows_ends_the_greeting(
    ends: Ends, secret: bytes | None, answer: Welcome | Challenge, reason: str
) -> None:
    greeting = asyncio.create_task(be_welcomed(ends.worker, OPTIONS, secret))
    await ends.server.receive((Hello,), *LIMIT)
    await ends.server.send(answer, *LIMIT)
    with pytest.raises(AuthenticationError, match=reason):
        await greeting


async def test_a_worker_shows_that_it_has_the_rows(ends: Ends) -> None:
    joining = asyncio.create_task(declare(ends, await welcomed(ends)))
    await ends.server.receive((Declare,), *LIMIT)
    await ends.server.send(PREPARE, *LIMIT)
    await joining
    first, second = (part.content() for part in make_partitions(2, "squared"))
    told = answer(bytes([1]) * 16, first) * 2, answer(bytes([2]) * 16, second)
    assert (await ends.server.receive((Ready,), *LIMIT)).answers == told


async def test_settings_that_break_a_rule_are_the_servers_fault(ends: Ends) -> None:
    welcome = Welcome("run", SETTINGS.as_dict() | {"rounds": 0}, SILENCE)
    with pytest.raises(
        RemoteProtocolError, match=r"the server at .* sent settings that break a rule: .*rounds"
    ):
        read_settings(ends.worker, welcome)


async def test_a_worker_declares_what_it_stores_and_where_it_stands(ends: Ends) -> None:
    state, own = await welcomed(ends), make_partitions(2, "squared")
    state.round, state.over = 7, True
    joining = asyncio.create_task(declare(ends, state, OwnPartitions(own)))
    declared = await ends.server.receive((Declare,), *LIMIT)
    assert [d.id for d in declared.partitions] == ["p0", "p1"]
    assert [d.rows for d in declared.partitions] == [len(part.X) for part in own]
    assert (declared.round, declared.over, declared.state) == (7, True, b"")
    assert declared.machine == Machine.here(SETTINGS.arithmetic)
    await ends.server.send(PREPARE, *LIMIT)
    await joining
    told = await ends.server.receive((Ready,), *LIMIT)
    infos = [part.info(SETTINGS) for part in own]
    assert told.partitions == tuple(replace(i, digest=state.digest.keyed(i.digest)) for i in infos)


async def test_the_digest_that_shows_possession_is_of_no_use_in_another_run(ends: Ends) -> None:
    state, own = await welcomed(ends), make_partitions(2, "squared")
    joining = asyncio.create_task(declare(ends, state, OwnPartitions(own)))
    declared = await ends.server.receive((Declare,), *LIMIT)
    joining.cancel()
    for part, told in zip(own, declared.partitions, strict=True):
        assert told.digest == Digest("run").keyed(part.digest())
        assert told.digest not in (part.digest(), Digest("other run").keyed(part.digest()))


async def test_a_declaration_too_large_for_one_message_comes_in_pieces(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asyncdmtl.protocol.messages.pieces.PIECE_BYTES", 1)
    state = await welcomed(ends)
    joining = asyncio.create_task(declare(ends, state, OwnPartitions(make_partitions(3, "squared"))))
    some = [await ends.server.receive((DeclareSome,), *LIMIT) for _ in range(2)]
    last = await ends.server.receive((Declare,), *LIMIT)
    found = [*(message.partitions for message in some), last.partitions]
    assert [[part.id for part in parts] for parts in found] == [["p0"], ["p1"], ["p2"]]
    await ends.server.send(PREPARE, *LIMIT)
    await joining


async def test_an_encoding_that_breaks_a_rule_is_the_servers_fault(ends: Ends) -> None:
    joining = asyncio.create_task(declare(ends, await welcomed(ends)))
    await ends.server.receive((Declare,), *LIMIT)
    await ends.server.send(Prepare({"columns": 5}), *LIMIT)
    with pytest.raises(RemoteProtocolError, match="sent an encoding that breaks a rule"):
        await joining


async def test_rows_that_cannot_be_used_end_the_joining(ends: Ends) -> None:
    state, own = await welcomed(ends), OwnPartitions(make_partitions(1, "squared"))
    logistic = make_settings(loss="logistic")
    joining = asyncio.create_task(declare_and_encode(ends.worker, OPTIONS, logistic, own, state))
    await ends.server.receive((Declare,), *LIMIT)
    await ends.server.send(PREPARE, *LIMIT)
    with pytest.raises(DataError, match="must be 0 or 1 for logistic loss"):
        await joining


async def test_the_wait_for_the_encoding_has_a_limit(ends: Ends) -> None:
    with pytest.raises(WaitError, match=r"no prepare came .* set by --start-timeout"):
        await declare(ends, await welcomed(ends), start_timeout=0.02)


async def test_a_worker_that_receives_the_probe_joins_the_group(ends: Ends) -> None:
    state, group = await ready(ends), free_group()
    message = JoinGroup(group.address, group.port, KEY, NONCE, PIECE_BYTES)
    await ends.server.send(message, *LIMIT)
    came = await ends.worker.receive((JoinGroup,), *LIMIT)
    sender, probe = GroupSender(group, LOOPBACK), memoryview(bytearray(PIECE_BYTES + OVERHEAD))
    Stream.of_probe(KEY, NONCE).seal(0, 0, memoryview(bytes(PIECE_BYTES)), probe)
    joining = asyncio.create_task(join_group(ends.worker, OPTIONS, state.log_fields(), came))
    # The task joins the group in its first turn, and then waits.
    await asyncio.sleep(0)
    await sender.send(DatagramBlock(probe, len(probe), 1))
    client = await joining
    sender.close()
    assert client is not None
    assert (await ends.server.receive((JoinedGroup,), *LIMIT)).reason == ""
    client.close()


async def test_a_group_is_left_if_the_connection_ends_or_the_worker_stops_before_it_is_used(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, group = await ready(ends), free_group()
    worker: Any = ends.worker
    await ends.server.send(JoinGroup(group.address, group.port, KEY, NONCE, PIECE_BYTES), *LIMIT)
    message = await ends.worker.receive((JoinGroup,), *LIMIT)
    stopped = asyncio.create_task(join_group(ends.worker, OPTIONS, state.log_fields(), message))
    await asyncio.sleep(0)
    assert worker.on_multicast_control is not None
    stopped.cancel()
    await asyncio.wait([stopped])
    assert worker.on_multicast_control is None

    async def heard(client: object) -> bool:
        await ends.worker.fail(LinkError("reset", peer="the server"))
        return True

    monkeypatch.setattr(MulticastClient, "receives_probe", heard)
    with pytest.raises(LinkError, match="reset"):
        await join_group(ends.worker, OPTIONS, state.log_fields(), message)
    assert worker.on_multicast_control is None


@pytest.mark.parametrize(
    ("interface", "reason"),
    [
        ("", "nothing was heard of the group 239.192.77.77 at 127.0.0.1"),
        ("nowhere0", "--interface must be one of the interfaces"),
    ],
)
async def test_a_worker_that_receives_no_probe_says_why(
    ends: Ends, monkeypatch: pytest.MonkeyPatch, interface: str, reason: str
) -> None:
    monkeypatch.setattr(multicast_client, "PROBE_SECONDS", 0.02)
    state, group = await ready(ends), free_group()
    await ends.server.send(JoinGroup(group.address, group.port, KEY, NONCE, PIECE_BYTES), *LIMIT)
    message = await ends.worker.receive((JoinGroup,), *LIMIT)
    options = WorkerOptions("w0", interface=interface)
    assert await join_group(ends.worker, options, state.log_fields(), message) is None
    told = await ends.server.receive((JoinedGroup,), *LIMIT)
    assert told.reason.startswith(reason)
    assert ends.worker.on_multicast_control is None


async def test_an_address_that_is_no_group_is_the_servers_fault(ends: Ends) -> None:
    message = JoinGroup("10.0.0.1", 7701, KEY, NONCE, PIECE_BYTES)
    with pytest.raises(RemoteProtocolError, match="named a group that is none"):
        await join_group(ends.worker, OPTIONS, {}, message)
