"""A worker's rows of a round on their way up, in step with what comes down of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from asyncdmtl.net.connection import Connection
from asyncdmtl.protocol.messages.registry import Message
from asyncdmtl.worker.multicast import MulticastClient
from asyncdmtl.worker.window import UplinkWindow

# Ranges of a round that a worker may send before it hears the first of them from the group: more would only
# wait in queues, and keep those of other workers waiting.
AHEAD = 3


class UplinkSender:
    """Sends the ranges of rounds, none too far ahead of what came down.

    Parameters
    ----------
    limit : float
        Seconds in which each message must be taken; the option --round-timeout sets it.
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
        ear: MulticastClient | None,
        *,
        in_step: bool,
    ) -> None:
        """Begin to send a round, whose ranges are these messages.

        They are sent `in_step` with what is heard, or else received, of the round; or as fast as they go,
        which they must be if nothing comes down before all is up.
        """
        await self.stop()
        self._received = -1
        self._window.begin()
        if len(messages) == 1 or not in_step:
            for message in messages:
                connection.write(message)
            await connection.drain(self._limit, "--round-timeout")
        else:
            self._task = asyncio.create_task(self._send(connection, messages, ear))

    def received(self, index: int) -> None:
        """Take note that a range has come down."""
        self._received = index
        self._window.received(asyncio.get_running_loop().time())
        self._changed.set()

    async def stop(self) -> None:
        """Send no more."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                # Who lost the connection is told so where it receives.
                task.exception()

    async def _send(
        self, connection: Connection, messages: Sequence[Message], ear: MulticastClient | None
    ) -> None:
        for index, message in enumerate(messages):
            if ear is not None:
                await ear.reached(index - AHEAD)
            while ear is None and self._received < index - self._window.ranges:
                self._changed.clear()
                await self._changed.wait()
            self._window.sent(asyncio.get_running_loop().time())
            await connection.send(message, self._limit, "--round-timeout")
