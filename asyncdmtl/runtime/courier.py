"""What carries the rows of a round: up from all workers, through the server's side, and down again.

Rows come range by range. Where the server only recombines, each range goes down as soon as all workers have
sent it, while the next ones come: a round takes little longer than the slower of the two directions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from asyncdmtl.errors import RemoteProtocolError
from asyncdmtl.exchange import DIGEST_BYTES, Sent
from asyncdmtl.protocol.messages import Downlink, Message, More, Uplink
from asyncdmtl.runtime.base import Bytes
from asyncdmtl.runtime.crew import Crew
from asyncdmtl.runtime.lineup import Lineup
from asyncdmtl.runtime.loop import Work
from asyncdmtl.runtime.member import Member
from asyncdmtl.runtime.station import Station


class Courier:
    """Carries the rows of all rounds of a run.

    Parameters
    ----------
    crew : Crew
    station : Station, optional
        Sends to a group what several members are sent.
    """

    def __init__(self, crew: Crew, station: Station | None = None) -> None:
        self._crew = crew
        self._station = station
        self._listeners: frozenset[Member] = frozenset()
        self._putting, self._finishing = Work(), Work()

    async def settle(self, seconds: float) -> None:
        """Wait until all who listen have the round that was begun last; but only so long."""
        if self._station is not None:
            await self._station.settle(seconds)

    async def hush(self) -> None:
        """Send no more of the round that was begun last."""
        if self._station is not None:
            await self._station.hush()

    async def begin(self, lineup: Lineup, round_: int) -> list[Sent]:
        """How the parts of all members begin; SetbackError if one of them is lost instead."""
        return await self._crew.ask_all(
            {member: self._uplink(lineup, k, round_) for k, member in enumerate(lineup.members)}
        )

    async def carry(
        self,
        lineup: Lineup,
        round_: int,
        sent: Sequence[Sent],
        then: Mapping[Member, str],
        last: bool,
        end: Callable[[], None],
    ) -> None:
        """Take in what else is sent up, and send all members their rows.

        Parameters
        ----------
        sent : sequence of Sent
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
        SetbackError
            A member is lost.
        """
        side = lineup.side
        side.begin(sent)
        if self._station is not None:
            heard = {m: k for k, m in enumerate(lineup.members) if m.name in lineup.listeners and m.hears}
            await self._station.begin(lineup.number, round_, side, heard)
            self._listeners = frozenset(heard)
        rows = [part.rows[0] for part in sent]
        for i in range(len(side.ranges)):
            if i:
                rows = await self._range(lineup, round_, i)
            await self._putting.do(side.put, i, rows)
            if side.streams:
                if i + 1 == len(side.ranges):
                    end()
                self._send(lineup, round_, then, i)
        if not side.streams:
            await self._finishing.do(side.finish, last)
            end()
            for i in range(len(side.ranges)):
                self._send(lineup, round_, then, i)
        # The quick send the next round's rows while the slow still take what came of these.
        del rows
        await self._crew.drain(lineup.members)

    async def _uplink(self, lineup: Lineup, k: int, round_: int) -> Sent:
        member = lineup.members[k]
        uplink = await self._crew.receive(member, Uplink)
        self._check_place(lineup, member, uplink, round_)
        digests = tuple(
            uplink.digests[start : start + DIGEST_BYTES]
            for start in range(0, len(uplink.digests), DIGEST_BYTES)
        )
        rows = self._shaped(lineup, k, 0, uplink.body)
        size = rows.nbytes + uplink.rest
        sent = Sent((rows,), size, digests, uplink.losses, uplink.penalty, uplink.residual)
        lineup.side.check(k, sent)
        return sent

    async def _range(self, lineup: Lineup, round_: int, i: int) -> list[Bytes]:
        """Range `i` of the rows of all members."""
        return await self._crew.ask_all(
            {member: self._more(lineup, k, round_, i) for k, member in enumerate(lineup.members)}
        )

    async def _more(self, lineup: Lineup, k: int, round_: int, i: int) -> Bytes:
        count, width = lineup.side.uplink_range(k, i)
        if not count:
            return np.empty((0, width), np.uint8)
        member = lineup.members[k]
        more = await self._crew.receive(member, More)
        self._check_place(lineup, member, more, round_)
        return self._shaped(lineup, k, i, more.body)

    def _send(self, lineup: Lineup, round_: int, then: Mapping[Member, str], i: int) -> None:
        """Write range `i` of what each member is sent."""
        side = lineup.side
        for k, member in enumerate(lineup.members):
            if member in self._listeners:
                if not i:
                    what = then[member]
                    self._crew.write(
                        member, Downlink(lineup.number, round_, what, side.digest(k), grouped=True)
                    )
                continue
            rows = side.rows(k, i)
            size = sum(row.nbytes for row in rows)
            if not i:
                rest = side.downlink_bytes(k) - size
                message: Message = Downlink(
                    lineup.number, round_, then[member], side.digest(k), rows, rest=rest
                )
            elif size:
                message = More(lineup.number, round_, rows)
            else:
                continue
            self._crew.write(member, message)
        if self._station is not None:
            self._station.ready(i + 1)

    @staticmethod
    def _check_place(lineup: Lineup, member: Member, message: Uplink | More, round_: int) -> None:
        if (message.plan, message.round) != (lineup.number, round_):
            raise RemoteProtocolError(
                f"{member.connection.peer} sent round {message.round} of plan {message.plan} "
                f"in round {round_} of plan {lineup.number}"
            )

    @staticmethod
    def _shaped(lineup: Lineup, k: int, i: int, body: Bytes) -> Bytes:
        """These bytes as rows of the range."""
        count, width = lineup.side.uplink_range(k, i)
        if body.nbytes != count * width:
            raise RemoteProtocolError(
                f"{lineup.members[k].connection.peer} sent {body.nbytes} bytes of rows in a range, "
                f"the plan says {count * width}"
            )
        return body.reshape(count, width)
