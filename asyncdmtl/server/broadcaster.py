"""The server's broadcast of a round: it is sent, and repaired until every listener has it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Protocol

from asyncdmtl.multicast.rate import RateControl
from asyncdmtl.multicast.sending import Broadcast, DatagramBlock, ReceptionCounts
from asyncdmtl.net.udp import GroupSender

# Fresh rows are sent before anybody asks for them if at least so much of each is needed on the average: what
# is not needed serves nobody.
NEEDED = 0.75


# Ranges after which listeners are asked: questions cost bytes, too.
TOGETHER = 8


class Control(Protocol):
    """The server's connections to the listeners, on which small things go; and who counts."""

    def ask(self, worker: str, index: int, count: int) -> None:
        """Ask a listener what it lacks of so many ranges."""

    def deliver(self, worker: str, index: int) -> None:
        """Send a listener its rows of a range."""

    def give_up(self, worker: str) -> None:
        """Take note of a listener that does not answer: it is not to be one of the next round."""

    def count(self, block: DatagramBlock) -> None:
        """Take note of datagrams that were sent."""


class Broadcaster:
    """Sends rounds to a group, no faster than the network takes them.

    Parameters
    ----------
    sender : GroupSender
    pace : RateControl
    control : Control
    patience : float
        Seconds that listeners have to answer, once all of a round is sent.

    Attributes
    ----------
    sent, repaired : int
        Bytes of all datagrams, without the headers below them; and of those that carried fresh rows.
    receptions : dict of worker to ReceptionCounts
        What each listener had of all rounds.
    """

    def __init__(self, sender: GroupSender, pace: RateControl, control: Control, patience: float) -> None:
        self.sent = 0
        self.repaired = 0
        self.receptions: dict[str, ReceptionCounts] = {}
        self.pace = pace
        self._sender = sender
        self._control = control
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._broadcast: Broadcast | None = None
        self._ready = 0

    def begin(self, broadcast: Broadcast) -> None:
        """Begin a round, of which nothing is `ready` yet."""
        self._broadcast, self._ready = broadcast, 0

    async def run(self) -> None:
        """Send the ranges of the round as they are `ready`, and repair them until all listeners have them."""
        broadcast = self._broadcast
        assert broadcast is not None
        try:
            while not broadcast.settled:
                if (index := broadcast.range_to_repair()) is not None:
                    await self._repair(broadcast, index)
                elif broadcast.begun < self._ready:
                    await self._first(broadcast, broadcast.begun)
                else:
                    await self._news(broadcast)
        finally:
            if self._broadcast is broadcast:
                self._broadcast = None
            for worker, reception in broadcast.receptions.items():
                self.receptions.setdefault(worker, ReceptionCounts()).add(reception)

    def ready(self, count: int) -> None:
        """Tell that the first `count` ranges of the round may be sent."""
        self._ready = count
        self._changed.set()

    def answer(self, worker: str, index: int, lacks: bytes, seen: int) -> None:
        """Take in what a listener lacks; RemoteProtocolError if that is no answer to what it was asked."""
        if (broadcast := self._broadcast) is None or worker not in broadcast.listeners:
            return
        reception = broadcast.receptions[worker]
        sent, lost = reception.sent, reception.lost
        complete = broadcast.take_report(worker, index, lacks, seen)
        if not broadcast.repaired(index):
            self.pace.report_loss(worker, reception.sent - sent, reception.lost - lost)
        if complete:
            self._changed.set()

    def drop(self, worker: str) -> None:
        """Go on without a listener that is lost."""
        if self._broadcast is not None:
            self._broadcast.drop(worker)
            self._changed.set()

    async def _news(self, broadcast: Broadcast) -> None:
        """Wait for an answer, a range or a loss; who does not answer is waited for no more.

        What a worker has to say comes after the rows that it sends, which may take long: its time begins when
        all of them were there.
        """
        self._changed.clear()
        try:
            async with asyncio.timeout(
                self._patience if broadcast.begun == broadcast.layout.ranges else None
            ):
                await self._changed.wait()
        except TimeoutError:
            for worker, indices in broadcast.unanswered().items():
                for index in indices:
                    self._control.deliver(worker, index)
                broadcast.drop(worker)
                self._control.give_up(worker)

    async def _first(self, broadcast: Broadcast, index: int) -> None:
        spare = int(self.pace.lost * broadcast.count + 1 - NEEDED)
        await self._send(broadcast.next_range(spare))
        if index + 1 == broadcast.layout.ranges or not (index + 1) % TOGETHER:
            first = index - index % TOGETHER
            for worker in broadcast.listeners:
                self._control.ask(worker, first, index + 1 - first)

    async def _repair(self, broadcast: Broadcast, index: int) -> None:
        for worker in broadcast.take_unrepairable(index):
            self._control.deliver(worker, index)
        if not broadcast.lacking(index):
            return
        await self._send(broadcast.repair(index))
        for worker in broadcast.waiting(index):
            self._control.ask(worker, index, 1)

    async def _send(self, blocks: Iterator[DatagramBlock]) -> None:
        for block in blocks:
            size = len(block.datagrams)
            headers = block.count * self._sender.group.headers
            # Without a pause, others still have their turn.
            await asyncio.sleep(self.pace.wait(self._loop.time(), size + headers))
            await self._sender.send(block)
            self.sent += size
            self.repaired += size if block.fresh else 0
            self._control.count(block)
