"""The loop that sends a round to the multicast group, and repairs it until every listener has it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Protocol

from asyncdmtl.multicast.rate import RateControl
from asyncdmtl.multicast.sending import Broadcast, DatagramBlock, ReceptionCounts
from asyncdmtl.net.udp import GroupSender

# A fresh row is sent before any report only if listeners are expected to need at least this many of it on
# average. With less, most fresh rows would be useless.
EXPECTED_NEED = 0.75

# The number of ranges after which listeners are asked for reports. A query after each range would cost more
# bytes.
RANGES_PER_QUERY = 8


class ListenerControl(Protocol):
    """The interface to the listeners' connections, which carry loss queries and missing rows."""

    def ask(self, worker: str, index: int, count: int) -> None:
        """Ask a listener which rows it lacks in `count` ranges, from range `index` on."""

    def deliver(self, worker: str, index: int) -> None:
        """Send a listener its rows of a range over its connection."""

    def give_up(self, worker: str) -> None:
        """Serve a listener over TCP from the next round on, because it does not answer."""

    def count(self, block: DatagramBlock) -> None:
        """Count datagrams that were sent."""


class MulticastSender:
    """Sends rounds to a group, at a rate that the network can carry.

    Parameters
    ----------
    sender : GroupSender
    rate : RateControl
    control : ListenerControl
    patience : float
        Seconds that listeners have to answer, once the whole round was sent.

    Attributes
    ----------
    sent, repaired : int
        Bytes of all datagrams, without UDP, IP and Ethernet headers, and of the datagrams with fresh rows.
    receptions : dict of worker to ReceptionCounts
        The counts of each listener over all rounds.
    rate : RateControl
    """

    def __init__(
        self, sender: GroupSender, rate: RateControl, control: ListenerControl, patience: float
    ) -> None:
        self.sent = 0
        self.repaired = 0
        self.receptions: dict[str, ReceptionCounts] = {}
        self.rate = rate
        self._sender = sender
        self._control = control
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._broadcast: Broadcast | None = None
        self._ready = 0

    def begin(self, broadcast: Broadcast) -> None:
        """Begin a round; its ranges are sent once they are `ready`."""
        self._broadcast, self._ready = broadcast, 0

    async def run(self) -> None:
        """Send the ranges of the round as they become ready, and repair them until listeners have them."""
        broadcast = self._broadcast
        assert broadcast is not None
        try:
            while not broadcast.settled:
                if (index := broadcast.range_to_repair()) is not None:
                    await self._repair(broadcast, index)
                elif broadcast.begun < self._ready:
                    await self._send_range(broadcast, broadcast.begun)
                else:
                    await self._wait(broadcast)
        finally:
            if self._broadcast is broadcast:
                self._broadcast = None
            for worker, reception in broadcast.receptions.items():
                self.receptions.setdefault(worker, ReceptionCounts()).add(reception)

    def ready(self, count: int) -> None:
        """Note that the first `count` ranges of the round may be sent."""
        self._ready = count
        self._changed.set()

    def take_report(self, worker: str, index: int, lacks: bytes, seen: int) -> None:
        """Process a listener's report of the rows that it lacks in a range.

        Raises
        ------
        RemoteProtocolError
            The report does not answer a question.
        """
        if (broadcast := self._broadcast) is None or worker not in broadcast.listeners:
            return
        reception = broadcast.receptions[worker]
        sent, lost = reception.sent, reception.lost
        complete = broadcast.take_report(worker, index, lacks, seen)
        if not broadcast.repaired(index):
            self.rate.report_loss(worker, reception.sent - sent, reception.lost - lost)
        if complete:
            self._changed.set()

    def drop(self, worker: str) -> None:
        """Remove a listener that is lost."""
        if self._broadcast is not None:
            self._broadcast.drop(worker)
            self._changed.set()

    async def _wait(self, broadcast: Broadcast) -> None:
        """Wait for a report, a range or a lost listener. A listener that does not answer in time is given up.

        A worker answers after its own rows, which may take long. So the time to answer begins when all ranges
        of the round have arrived at the server.
        """
        self._changed.clear()
        seconds = self._patience if broadcast.begun == broadcast.layout.ranges else None
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            for worker, indices in broadcast.unanswered().items():
                for index in indices:
                    self._control.deliver(worker, index)
                broadcast.drop(worker)
                self._control.give_up(worker)

    async def _send_range(self, broadcast: Broadcast, index: int) -> None:
        """Send a range for the first time, with as many fresh rows as listeners are expected to need."""
        spare = int(self.rate.lost * broadcast.count + 1 - EXPECTED_NEED)
        await self._send(broadcast.next_range(spare))
        if index + 1 == broadcast.layout.ranges or not (index + 1) % RANGES_PER_QUERY:
            first = index - index % RANGES_PER_QUERY
            for worker in broadcast.listeners:
                self._control.ask(worker, first, index + 1 - first)

    async def _repair(self, broadcast: Broadcast, index: int) -> None:
        """Send fresh rows in place of lost ones or, if repairs are hopeless, rows over TCP."""
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
            # Other tasks get their turn even if the pause is 0.
            await asyncio.sleep(self.rate.wait(self._loop.time(), size + headers))
            await self._sender.send(block)
            self.sent += size
            self.repaired += size if block.fresh else 0
            self._control.count(block)
