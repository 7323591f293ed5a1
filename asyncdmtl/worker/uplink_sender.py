"""Sends a worker's rows of a round up, in step with the rows that come down."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from asyncdmtl.net.connection import Connection
from asyncdmtl.protocol.messages.registry import Message
from asyncdmtl.worker.multicast_client import MulticastClient
from asyncdmtl.worker.window import UplinkWindow

# The number of ranges that a worker may be ahead of the ranges from the multicast group. More ranges would
# wait in queues, and delay the rows of other workers.
RANGES_AHEAD_OF_GROUP = 3


class UplinkSender:
    """Sends the ranges of rounds, not too far ahead of the ranges that come down.

    Parameters
    ----------
    limit : float
        Seconds within which the server must receive each message; the option --round-timeout sets it.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._window = UplinkWindow()
        self._received = -1
        self._paced = True
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def begin(
        self,
        connection: Connection,
        messages: Sequence[Message],
        group: MulticastClient | None,
        *,
        in_step: bool,
        paced: bool = True,
    ) -> None:
        """Begin to send the ranges of a round.

        Parameters
        ----------
        connection : Connection
        messages : sequence of Message
            One message for each range, in order.
        group : MulticastClient or None
            The group that the rows of the round come from; None if they come over the connection.
        in_step : bool
            Whether ranges go up in step with those that come down. Otherwise they go up as fast as possible,
            which is necessary if nothing comes down before all ranges are up.
        paced : bool
            Whether ranges that go up in step stay within the window. If the uplink takes longer than the
            downlink, its time counts, and a slow link down must not delay the rows up.
        """
        await self.stop()
        self._received = -1
        self._paced = paced
        self._window.begin()
        if len(messages) == 1 or not in_step:
            for message in messages:
                connection.write(message)
            await connection.drain(self._limit, "--round-timeout")
        else:
            self._task = asyncio.create_task(self._send(connection, messages, group))

    def received(self, index: int) -> None:
        """Note that a range has come down."""
        self._received = index
        self._window.received(asyncio.get_running_loop().time())
        self._changed.set()

    async def stop(self) -> None:
        """Stop sending the round."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                # A lost connection is reported where messages are received.
                task.exception()

    async def _send(
        self, connection: Connection, messages: Sequence[Message], group: MulticastClient | None
    ) -> None:
        for index, message in enumerate(messages):
            if group is not None:
                await group.reached(index - RANGES_AHEAD_OF_GROUP)
            while self._paced and group is None and self._received < index - self._window.ranges:
                self._changed.clear()
                await self._changed.wait()
            self._window.sent(asyncio.get_running_loop().time())
            await connection.send(message, self._limit, "--round-timeout")
