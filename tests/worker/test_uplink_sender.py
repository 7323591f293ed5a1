from __future__ import annotations

import asyncio
from typing import Any

import numpy as np

from asyncdmtl.errors import LinkError
from asyncdmtl.protocol.messages.registry import MoreRows
from asyncdmtl.worker.uplink_sender import RANGES_AHEAD_OF_GROUP, UplinkSender
from asyncdmtl.worker.window import FIRST_WINDOW

MESSAGES = [MoreRows(0, 0, (np.full(4, i, np.uint8),)) for i in range(8)]


class Connection:
    """Accepts all messages at once, until it is lost."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.lost = False

    def write(self, message: Any) -> None:
        self.sent.append(message)

    async def drain(self, seconds: float, option: str) -> None:
        assert option == "--round-timeout"

    async def send(self, message: Any, seconds: float, option: str) -> None:
        if self.lost:
            raise LinkError("reset", peer="the server")
        self.sent.append(message)


class Group:
    """A multicast group from which ranges arrive on demand."""

    def __init__(self) -> None:
        self.arrived = -1
        self.changed = asyncio.Event()

    async def reached(self, index: int) -> None:
        while self.arrived < index:
            self.changed.clear()
            await self.changed.wait()

    def arrive(self, index: int) -> None:
        self.arrived = index
        self.changed.set()


async def turns() -> None:
    """Let all tasks run until they wait."""
    for _ in range(50):
        await asyncio.sleep(0)


async def begun(messages: list[MoreRows], group: Any = None, *, in_step: bool) -> tuple[UplinkSender, Any]:
    sender, connection = UplinkSender(60.0), Connection()
    made: Any = connection
    await sender.begin(made, messages, group, in_step=in_step)
    await turns()
    return sender, connection


async def test_a_single_range_and_ranges_out_of_step_are_sent_at_once() -> None:
    for messages, in_step in ((MESSAGES[:1], True), (MESSAGES, False)):
        sender, connection = await begun(messages, in_step=in_step)
        assert connection.sent == messages
        await sender.stop()


async def test_ranges_go_up_in_step_with_those_that_come_down() -> None:
    sender, connection = await begun(MESSAGES, in_step=True)
    assert len(connection.sent) == FIRST_WINDOW
    sender.received(0)
    await turns()
    assert len(connection.sent) == FIRST_WINDOW + 1
    for index in range(1, len(MESSAGES)):
        sender.received(index)
        await turns()
    assert connection.sent == MESSAGES


async def test_ranges_go_up_in_step_with_those_that_the_group_brings() -> None:
    group = Group()
    _, connection = await begun(MESSAGES, group, in_step=True)
    assert len(connection.sent) == RANGES_AHEAD_OF_GROUP
    group.arrive(1)
    await turns()
    assert len(connection.sent) == RANGES_AHEAD_OF_GROUP + 2
    group.arrive(len(MESSAGES))
    await turns()
    assert connection.sent == MESSAGES


async def test_a_round_that_is_given_up_sends_no_more() -> None:
    sender, connection = await begun(MESSAGES, in_step=True)
    await sender.stop()
    sender.received(5)
    await turns()
    assert len(connection.sent) == FIRST_WINDOW


async def test_a_lost_connection_is_told_of_where_messages_are_received() -> None:
    sender, connection = await begun(MESSAGES, in_step=True)
    connection.lost = True
    sender.received(0)
    await turns()
    await sender.stop()
