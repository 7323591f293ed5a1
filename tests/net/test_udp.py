from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest
from support.groups import LOOPBACK, free_group

from asyncdmtl.errors import LinkError, UsageError
from asyncdmtl.multicast.datagrams import OVERHEAD
from asyncdmtl.multicast.sending import DatagramBlock
from asyncdmtl.net.udp import Group, GroupReceiver, GroupSender, interface_index

NAME, OTHER = b"stream", b"others"


@pytest.fixture
def group() -> Group:
    return free_group()


@pytest.fixture
async def sender(group: Group) -> AsyncIterator[GroupSender]:
    made = GroupSender(group, LOOPBACK)
    yield made
    made.close()


@contextmanager
def receiving(group: Group) -> Iterator[tuple[GroupReceiver, asyncio.Queue[bytes]]]:
    """A receiver that puts the datagrams of a stream into a queue."""
    receiver, heard = GroupReceiver(group, LOOPBACK), asyncio.Queue[bytes]()
    receiver.listen(NAME, lambda datagram: heard.put_nowait(bytes(datagram)))
    try:
        yield receiver, heard
    finally:
        receiver.close()


def block(*datagrams: bytes) -> DatagramBlock:
    return DatagramBlock(memoryview(b"".join(datagrams)), len(datagrams[0]), len(datagrams))


async def heard_of(queue: asyncio.Queue[bytes], count: int) -> list[bytes]:
    async with asyncio.timeout(10):
        return [await queue.get() for _ in range(count)]


@pytest.mark.parametrize("segmented", [True, False], ids=["at once", "one by one"])
async def test_all_receivers_get_every_datagram(group: Group, sender: GroupSender, segmented: bool) -> None:
    sender._segmented = sender._segmented and segmented
    sent = [NAME + bytes([i]) * 500 for i in range(40)] + [NAME + b"last, and shorter"]
    with receiving(group) as (_, one), receiving(group) as (_, two):
        await sender.send(block(*sent))
        assert await heard_of(one, len(sent)) == sent
        assert await heard_of(two, len(sent)) == sent


async def test_a_kernel_that_does_not_cut_blocks_is_helped(
    group: Group, sender: GroupSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asyncdmtl.net.udp.UDP_SEGMENT", 9999)
    sent = [NAME + b"1", NAME + b"2"]
    with receiving(group) as (_, heard):
        await sender.send(block(*sent))
        assert await heard_of(heard, 2) == sent
    assert not sender._segmented


async def test_datagrams_of_other_streams_are_counted(group: Group, sender: GroupSender) -> None:
    with receiving(group) as (receiver, heard):
        await sender.send(block(OTHER + b"1", OTHER + b"2", NAME + b"3"))
        assert await heard_of(heard, 1) == [NAME + b"3"]
        assert receiver.counts.foreign == 2
        receiver.forget(NAME)
        done = asyncio.Event()
        receiver.listen(OTHER, lambda datagram: done.set())
        await sender.send(block(NAME + b"4", OTHER + b"5"))
        async with asyncio.timeout(10):
            await done.wait()
        assert receiver.counts.foreign == 3


async def test_waiting_datagrams_can_be_read_at_once(group: Group, sender: GroupSender) -> None:
    with receiving(group) as (receiver, heard):
        for i in range(20):
            await sender.send(block(NAME + bytes([i])))
        receiver.read()
        assert heard.qsize() == 20


async def test_empty_and_strange_datagrams_do_no_harm(group: Group, sender: GroupSender) -> None:
    with (
        receiving(group) as (receiver, heard),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger,
    ):
        stranger.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(LOOPBACK))
        for content in (b"", b"x", b"stream", bytes(1400)):
            stranger.sendto(content, (group.address, group.port))
        await sender.send(block(NAME + b"1"))
        assert await heard_of(heard, 2) == [b"stream", NAME + b"1"]
        assert receiver.counts.foreign == 2


async def test_pieces_fit_the_interface(sender: GroupSender) -> None:
    size = sender.piece_bytes + OVERHEAD
    assert 500 < size <= 9000 - 28
    with receiving(sender.group) as (_, heard):
        content = NAME + bytes(size - len(NAME))
        await sender.send(block(content))
        assert await heard_of(heard, 1) == [content]


async def test_a_sender_that_is_faster_than_the_network_waits(group: Group, sender: GroupSender) -> None:
    sender._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    sent = [NAME + i.to_bytes(2, "big") * 700 for i in range(200)]
    with receiving(group) as (_, heard):
        for at in range(0, len(sent), 20):
            await sender.send(block(*sent[at : at + 20]))
        assert await heard_of(heard, len(sent)) == sent


async def test_datagrams_that_the_network_refuses_are_lost(
    group: Group, sender: GroupSender, caplog: pytest.LogCaptureFixture
) -> None:
    too_large = NAME + bytes(70_000)
    await sender.send(block(too_large))
    await sender.send(block(too_large))
    assert [record.message for record in caplog.records] == [
        f"datagrams to {group.address} are lost: Message too long"
    ]
    with receiving(group) as (_, heard):
        await sender.send(block(NAME))
        assert await heard_of(heard, 1) == [NAME]


@pytest.mark.parametrize(
    ("address", "port", "hops", "complaint"),
    [
        ("10.0.0.1", 7701, 1, "--group must be a multicast address"),
        ("nonsense", 7701, 1, "--group must be a multicast address"),
        ("239.1.2.3", 0, 1, "--group must have a port from 1 to 65535, got 0"),
        ("ff15::1", 7701, 256, "--hops must lie between 0 and 255, got 256"),
    ],
)
def test_groups_that_are_none(address: str, port: int, hops: int, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        Group(address, port, hops)


def test_families() -> None:
    assert Group("239.1.2.3").family == socket.AF_INET
    assert Group("ff15::1").family == socket.AF_INET6
    assert Group("ff15::1").headers - Group("239.1.2.3").headers == 20


async def test_interfaces_that_are_not_here(group: Group) -> None:
    for end in (GroupSender, GroupReceiver):
        with pytest.raises(UsageError, match=r"--interface must be one of the interfaces .*lo.*'nowhere0'"):
            end(group, "nowhere0")
    with pytest.raises(LinkError, match="nothing can be sent to the group"):
        GroupSender(group, "192.0.2.1")
    with pytest.raises(LinkError, match="cannot be joined"):
        GroupReceiver(group, "192.0.2.1")


def test_interfaces_have_names_and_addresses() -> None:
    names = {name: index for index, name in socket.if_nameindex()}
    assert interface_index("lo") == names["lo"]
    assert interface_index("") == 0
    with pytest.raises(UsageError):
        interface_index("fe80::dead:beef")
