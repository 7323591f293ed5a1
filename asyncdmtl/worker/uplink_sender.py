"""A worker's rows of a round on their way up, in step with the rows that come down."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from asyncdmtl.net.connection import Connection
from asyncdmtl.protocol.messages.registry import Message
from asyncdmtl.worker.multicast_client import MulticastClient
from asyncdmtl.worker.window import UplinkWindow

# Ranges of a round that a worker may send before the first of them arrives from the multicast group. More
# would wait in queues, and delay the rows of other workers.
RANGES_AHEAD_OF_GROUP = 3


class UplinkSender:
    """Sends the ranges of rounds, none too far ahead of the ranges that come down.

    Parameters
    ----------
    limit : float
        Seconds in which the server must take each message; the option --round-timeout sets it.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._window = UplinkWindow()
        self._received = -1
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def begin(
        self,
        connection: Connection,
        messages: Sequence[Message],
        group: MulticastClient | None,
        *,
        in_step: bool,
    ) -> None:
        """Begin to send the ranges of a round.

        Parameters
        ----------
        connection : Connection
        messages : sequence of Message
            One for each range, in their order.
        group : MulticastClient or None
            The group from which the rows of the round come; if None, they come over the connection.
        in_step : bool
            Whether ranges go up in step with those that come down. Else they go up as fast as they can, which
            they must where nothing comes down before all is up.
        """
        await self.stop()
        self._received = -1
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
        """Send no more of the round."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                # That the connection was lost is raised where messages are received.
                task.exception()

    async def _send(
        self, connection: Connection, messages: Sequence[Message], group: MulticastClient | None
    ) -> None:
        for index, message in enumerate(messages):
            if group is not None:
                await group.reached(index - RANGES_AHEAD_OF_GROUP)
            while group is None and self._received < index - self._window.ranges:
                self._changed.clear()
                await self._changed.wait()
            self._window.sent(asyncio.get_running_loop().time())
            await connection.send(message, self._limit, "--round-timeout")
