"""What carries the rows of a round: up from all workers, through the server's side, and down again.

Rows come range by range. Where the server only recombines, each range goes down as soon as all workers have
sent it, while the next ones come: a round takes little longer than the slower of the two directions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from asyncdmtl.arrays import Bytes
from asyncdmtl.digests import VECTOR_DIGEST_BYTES
from asyncdmtl.errors import RemoteProtocolError
from asyncdmtl.exchange.coded import Upload
from asyncdmtl.net.event_loop import AdaptiveExecutor
from asyncdmtl.protocol.messages.registry import Downlink, Message, MoreRows, Uplink
from asyncdmtl.server.assignment import Assignment
from asyncdmtl.server.member import Member
from asyncdmtl.server.multicast import MulticastServer
from asyncdmtl.server.peers import Peers


class RowTransfer:
    """Carries the rows of all rounds of a run.

    Parameters
    ----------
    peers : Peers
    station : MulticastServer, optional
        Sends to a group what several members are sent.
    """

    def __init__(self, peers: Peers, station: MulticastServer | None = None) -> None:
        self._peers = peers
        self._station = station
        self._listeners: frozenset[Member] = frozenset()
        self._putting, self._finishing = AdaptiveExecutor(), AdaptiveExecutor()

    async def settle(self, seconds: float) -> None:
        """Wait until all who listen have the round that was begun last; but only so long."""
        if self._station is not None:
            await self._station.settle(seconds)

    async def hush(self) -> None:
        """Send no more of the round that was begun last."""
        if self._station is not None:
            await self._station.hush()

    async def begin(self, assignment: Assignment, round_: int) -> list[Upload]:
        """How the parts of all members begin; ReplanError if one of them is lost instead."""
        return await self._peers.ask_all(
            {member: self._uplink(assignment, k, round_) for k, member in enumerate(assignment.members)}
        )

    async def carry(
        self,
        assignment: Assignment,
        round_: int,
        sent: Sequence[Upload],
        then: Mapping[Member, str],
        last: bool,
        end: Callable[[], None],
    ) -> None:
        """Take in what else is sent up, and send all members their rows.

        Parameters
        ----------
        sent : sequence of Upload
            What `begin` gave.
        then : mapping of Member to str
            What each does after the round.
        last : bool
            Whether the round ends the run.
        end : callable
            Called when the result of the round is certain, and before anybody is told all of it.

        Raises
        ------
        DisagreementError
            Holders of a partition computed different updates.
        IntegrityError
            What the server decoded is not what was computed.
        ReplanError
            A member is lost.
        """
        side = assignment.side
        side.begin(sent)
        if self._station is not None:
            heard = {
                m: k for k, m in enumerate(assignment.members) if m.name in assignment.listeners and m.hears
            }
            await self._station.begin(assignment.number, round_, side, heard)
            self._listeners = frozenset(heard)
        rows = [part.rows[0] for part in sent]
        for i in range(len(side.ranges)):
            if i:
                rows = await self._range(assignment, round_, i)
            await self._putting.do(side.put, i, rows)
            if side.streams:
                if i + 1 == len(side.ranges):
                    end()
                self._send(assignment, round_, then, i)
        if not side.streams:
            await self._finishing.do(side.finish, last)
            end()
            for i in range(len(side.ranges)):
                self._send(assignment, round_, then, i)
        # The quick send the next round's rows while the slow still take what came of these.
        del rows
        await self._peers.drain(assignment.members)

    async def _uplink(self, assignment: Assignment, k: int, round_: int) -> Upload:
        member = assignment.members[k]
        uplink = await self._peers.receive(member, Uplink)
        self._check_place(assignment, member, uplink, round_)
        digests = tuple(
            uplink.digests[start : start + VECTOR_DIGEST_BYTES]
            for start in range(0, len(uplink.digests), VECTOR_DIGEST_BYTES)
        )
        rows = self._shaped(assignment, k, 0, uplink.body)
        size = rows.nbytes + uplink.rest
        sent = Upload((rows,), size, digests, uplink.losses, uplink.penalty, uplink.residual)
        assignment.side.check(k, sent)
        return sent

    async def _range(self, assignment: Assignment, round_: int, i: int) -> list[Bytes]:
        """Range `i` of the rows of all members."""
        return await self._peers.ask_all(
            {member: self._more(assignment, k, round_, i) for k, member in enumerate(assignment.members)}
        )

    async def _more(self, assignment: Assignment, k: int, round_: int, i: int) -> Bytes:
        count, width = assignment.side.uplink_range(k, i)
        if not count:
            return np.empty((0, width), np.uint8)
        member = assignment.members[k]
        more = await self._peers.receive(member, MoreRows)
        self._check_place(assignment, member, more, round_)
        return self._shaped(assignment, k, i, more.body)

    def _send(self, assignment: Assignment, round_: int, then: Mapping[Member, str], i: int) -> None:
        """Write range `i` of what each member is sent."""
        side = assignment.side
        for k, member in enumerate(assignment.members):
            if member in self._listeners:
                if not i:
                    what = then[member]
                    self._peers.write(
                        member, Downlink(assignment.number, round_, what, side.digest(k), grouped=True)
                    )
                continue
            rows = side.rows(k, i)
            size = sum(row.nbytes for row in rows)
            if not i:
                rest = side.downlink_bytes(k) - size
                message: Message = Downlink(
                    assignment.number, round_, then[member], side.digest(k), rows, rest=rest
                )
            elif size:
                message = MoreRows(assignment.number, round_, rows)
            else:
                continue
            self._peers.write(member, message)
        if self._station is not None:
            self._station.ready(i + 1)

    @staticmethod
    def _check_place(assignment: Assignment, member: Member, message: Uplink | MoreRows, round_: int) -> None:
        if (message.plan, message.round) != (assignment.number, round_):
            raise RemoteProtocolError(
                f"{member.connection.peer} sent round {message.round} of plan {message.plan} "
                f"in round {round_} of plan {assignment.number}"
            )

    @staticmethod
    def _shaped(assignment: Assignment, k: int, i: int, body: Bytes) -> Bytes:
        """These bytes as rows of the range."""
        count, width = assignment.side.uplink_range(k, i)
        if body.nbytes != count * width:
            raise RemoteProtocolError(
                f"{assignment.members[k].connection.peer} sent {body.nbytes} bytes of rows in a range, "
                f"the plan says {count * width}"
            )
        return body.reshape(count, width)
