"""The rows that come down to a relay in a round: over its connection, or from a multicast group."""

from __future__ import annotations

import asyncio

from asyncdmtl.arrays import Bytes
from asyncdmtl.errors import RemoteProtocolError
from asyncdmtl.net.connection import Connection
from asyncdmtl.protocol.messages.registry import Assign, Downlink, MoreRows
from asyncdmtl.relay.sides import RelaySide
from asyncdmtl.worker.multicast_client import MulticastClient
from asyncdmtl.worker.participation import NewPlan


class ParentRows:
    """Receives the rows of a round, range by range.

    Parameters
    ----------
    connection : Connection
        To the parent.
    downlink : Downlink
        The message with which the round came down.
    side : RelaySide
    group : MulticastClient or None
        The server's multicast group, if the relay listens to it.
    limit : float and str
        The most seconds for a message, and the option that sets them.

    Raises
    ------
    RemoteProtocolError
        The rows are not those of the plan.
    """

    def __init__(
        self,
        connection: Connection,
        downlink: Downlink,
        side: RelaySide,
        group: MulticastClient | None,
        limit: tuple[float, str],
    ) -> None:
        self._connection, self._downlink, self._side, self._limit = connection, downlink, side, limit
        self._group = group if downlink.grouped else None
        rows = downlink.body
        if downlink.grouped:
            if group is None or not group.follows_plan:
                raise RemoteProtocolError(f"{connection.peer} sends rows to a group that is not listened to")
        elif rows.nbytes + downlink.rest != side.received_bytes:
            raise RemoteProtocolError(
                f"{connection.peer} sends {rows.nbytes + downlink.rest} bytes of rows, "
                f"the plan says {side.received_bytes}"
            )

    async def arrived(self, i: int) -> Bytes:
        """Range `i` over the connection; empty if it comes from the group.

        Raises
        ------
        NewPlan
            The parent sent a new plan instead.
        """
        if self._group is not None or (i and not self._side.received_range(i)):
            return self._downlink.body[:0]
        if not i:
            return self._downlink.body
        message: MoreRows | Assign = await self._connection.receive((MoreRows, Assign), *self._limit)
        if isinstance(message, Assign):
            raise NewPlan(message)
        return message.body

    async def decodable(self, i: int, rows: Bytes) -> Bytes:
        """Range `i` for the relay to decode, once it has the nodes' rows of that range.

        Parameters
        ----------
        i : int
        rows : Bytes
            What `arrived` returned.

        Raises
        ------
        NewPlan
            A plan came that replaces this round.
        """
        if self._group is not None:
            await self._complete(self._group, i)
            return self._group.hand_out(i)
        return rows if self._side.received_range(i) else rows[:0]

    async def _complete(self, group: MulticastClient, i: int) -> None:
        """Wait for range `i` from the group, or for a plan that replaces this round."""
        if group.has(i):
            return
        newer = asyncio.create_task(self._connection.receive((Assign,), *self._limit))
        arrival = asyncio.create_task(group.complete(i))
        try:
            await asyncio.wait((newer, arrival), return_when=asyncio.FIRST_COMPLETED)
            if newer.done():
                assign = newer.result()
                later = range(i, len(self._side.down_ranges))
                if assign.round <= self._downlink.round or not all(map(group.has, later)):
                    raise NewPlan(assign)
                self._connection.inbox.put_back(assign)
        finally:
            for task in (newer, arrival):
                task.cancel()
            await asyncio.wait((newer, arrival))
