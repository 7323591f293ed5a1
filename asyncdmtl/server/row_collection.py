"""The collection of a round's uploads and rows at the server, from all members."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import numpy as np

from asyncdmtl.arrays import Bytes
from asyncdmtl.errors import RemoteProtocolError
from asyncdmtl.exchange.upload import Upload
from asyncdmtl.protocol.messages.registry import Done, MoreRows, Uplink
from asyncdmtl.server.assignment import Assignment
from asyncdmtl.server.member import Member
from asyncdmtl.server.peers import Peers

NoteUplink = Callable[[Member, Uplink, float], None]


class RowCollection:
    """Collects the rows of one round from all members.

    Parameters
    ----------
    peers : Peers
    assignment : Assignment
    number : int
        The round.
    note_uplink : callable
        Called with a member, its uplink, and the seconds from the beginning of the round to it.

    Attributes
    ----------
    done : bool
        Whether members of a blind run have no upload, because they have found that training is over.
    """

    def __init__(self, peers: Peers, assignment: Assignment, number: int, note_uplink: NoteUplink) -> None:
        self.peers = peers
        self.assignment = assignment
        self.number = number
        self.side = assignment.side
        self.done = False
        self._note_uplink = note_uplink
        self._began = asyncio.get_running_loop().time()

    async def uploads(self) -> Sequence[Upload | None]:
        """The uploads of the members, in the order of the plan, with the rows of the first range.

        Raises
        ------
        ReplanError
            A member is lost.
        """
        members = self.assignment.members
        return await self.peers.ask_all({member: self._uplink(k) for k, member in enumerate(members)})

    async def range(self, i: int) -> Sequence[Bytes | None]:
        """Range `i`, from 1 on, of the rows of the members; raises as `uploads`."""
        members = self.assignment.members
        return await self.peers.ask_all({member: self._more(k, i) for k, member in enumerate(members)})

    async def end(self) -> None:
        """End the round: nothing is collected any more."""

    async def _uplink(self, k: int) -> Upload | None:
        """The upload of member `k`, with the rows of the first range.

        None if a member of a blind run is done instead; its message then stays in the inbox.
        """
        member = self.assignment.members[k]
        if not self.side.asks_for_the_end:
            return self.upload_of(k, await self.peers.receive(member, Uplink))
        first: Uplink | Done = await self.peers.receive_any(member, (Uplink, Done))
        if isinstance(first, Done):
            member.connection.inbox.put_back(first)
            self.done = True
            return None
        return self.upload_of(k, first)

    async def _more(self, k: int, i: int) -> Bytes:
        """Range `i` of the rows of member `k`, which has sent its upload."""
        count, width = self.side.uplink_range(k, i)
        if not count:
            return np.empty((0, width), np.uint8)
        return self.rows_of(k, i, await self.peers.receive(self.assignment.members[k], MoreRows))

    def upload_of(self, k: int, uplink: Uplink) -> Upload:
        """The upload in a message of member `k` for this round."""
        member = self.assignment.members[k]
        self._note_uplink(member, uplink, asyncio.get_running_loop().time() - self._began)
        check_place(member, uplink, (self.assignment.number, self.number))
        rows = shaped(member, uplink.body, self.side.uplink_range(k, 0))
        upload = self.side.layout(k).unpack(uplink.told, (rows,), rows.nbytes + uplink.rest)
        self.side.check(k, upload)
        return upload

    def rows_of(self, k: int, i: int, more: MoreRows) -> Bytes:
        """Range `i` of the rows of member `k` in a message for this round."""
        member = self.assignment.members[k]
        check_place(member, more, (self.assignment.number, self.number))
        return shaped(member, more.body, self.side.uplink_range(k, i))


def check_place(member: Member, message: Uplink | MoreRows, place: tuple[int, int]) -> None:
    """Raise RemoteProtocolError unless a member's message is for this plan and round."""
    if (message.plan, message.round) != place:
        raise RemoteProtocolError(
            f"{member.connection.peer} sent round {message.round} of plan {message.plan} "
            f"in round {place[1]} of plan {place[0]}"
        )


def shaped(member: Member, body: Bytes, shape: tuple[int, int]) -> Bytes:
    """Bytes of a member, reshaped as the rows of a range; RemoteProtocolError if they are not as many."""
    count, width = shape
    if body.nbytes != count * width:
        raise RemoteProtocolError(
            f"{member.connection.peer} sent {body.nbytes} bytes of rows in a range, "
            f"the plan says {count * width}"
        )
    return body.reshape(count, width)
