"""The transfer of a round's rows at the server: up from all workers, combined, and down again.

Rows travel range by range. If the server only recombines, each range goes down as soon as all workers have
sent it, while the next ranges come up. A round then takes little longer than the slower of the two
directions.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Mapping, Sequence

import numpy as np

from asyncdmtl.arrays import Bytes
from asyncdmtl.digests import VECTOR_DIGEST_BYTES
from asyncdmtl.errors import RemoteProtocolError
from asyncdmtl.exchange.sides import Upload
from asyncdmtl.net.event_loop import AdaptiveExecutor
from asyncdmtl.protocol.messages.registry import AfterRound, Downlink, Message, MoreRows, Uplink
from asyncdmtl.server.assignment import Assignment
from asyncdmtl.server.believed_states import BelievedStates
from asyncdmtl.server.member import Member
from asyncdmtl.server.multicast_server import MulticastServer
from asyncdmtl.server.peers import Peers, ReplanError

# The share of the last round in the moving average of a worker's seconds: some five rounds count.
NEW_SHARE = 0.2


class RowTransfer:
    """Transfers the rows of all rounds of a run.

    Parameters
    ----------
    peers : Peers
    states : BelievedStates
        Compares the states that members hold.
    multicast : MulticastServer, optional
        Sends the rows that several members need to a group.

    Attributes
    ----------
    uplink_seconds : dict of worker to float
        Seconds from the beginning of a round until the worker's uplink begins: a moving average.
    """

    def __init__(
        self, peers: Peers, states: BelievedStates, multicast: MulticastServer | None = None
    ) -> None:
        self.peers = peers
        self.states = states
        self.multicast = multicast
        self.uplink_seconds: dict[str, float] = {}
        # The first round that each worker has made. Those that have taken part for longest win ties.
        self.established: dict[str, int] = {}
        # Each kind of work has an executor of its own, since its duration decides whether it goes to a
        # thread.
        self.putting, self.finishing = AdaptiveExecutor(), AdaptiveExecutor()

    @contextlib.asynccontextmanager
    async def round(self, assignment: Assignment, number: int) -> AsyncIterator[RoundTransfer]:
        """A context for one round: entered once all uploads are here and agree, left once all rows are sent.

        Raises
        ------
        StateError
            Members hold different states of the training.
        DisagreementError
            Holders of a partition computed different updates.
        IntegrityError
            The server decoded other vectors than workers computed.
        ReplanError
            A member is lost.
        """
        transfer = RoundTransfer(self, assignment, number)
        await transfer.begin()
        yield transfer
        for member in assignment.members:
            self.established.setdefault(member.name, number)
        await self.peers.drain(assignment.members)

    def note_uplink(self, worker: str, seconds: float) -> None:
        """Note that the uplink of a worker began so many seconds after its round."""
        before = self.uplink_seconds.get(worker, seconds)
        self.uplink_seconds[worker] = before + NEW_SHARE * (seconds - before)

    async def settle(self, seconds: float) -> None:
        """Wait, at most `seconds`, until all listeners of the group have the last round."""
        if self.multicast is not None:
            await self.multicast.settle(seconds)

    async def stop_multicast(self) -> None:
        """Stop sending the last round to the group."""
        if self.multicast is not None:
            await self.multicast.stop()


class RoundTransfer:
    """The rows of one round.

    Attributes
    ----------
    uploads : tuple of Upload
        The uploads of all members, in the order of the plan, with the rows of the first range.
    arrived : float
        The moment at which the last rows of all members had arrived, on the clock of `time.perf_counter`.
    """

    def __init__(self, owner: RowTransfer, assignment: Assignment, number: int) -> None:
        self.uploads: tuple[Upload, ...] = ()
        self.arrived = math.nan
        self._owner = owner
        self._peers = owner.peers
        self._multicast = owner.multicast
        self._assignment = assignment
        self._side = assignment.side
        self._number = number
        self._listeners: frozenset[Member] = frozenset()
        self._began = asyncio.get_running_loop().time()

    async def begin(self) -> None:
        """Receive the uploads, and compare them; then begin to send to the group, if there is one."""
        members = self._assignment.members
        self.uploads = tuple(
            await self._peers.ask_all({member: self._uplink(k) for k, member in enumerate(members)})
        )
        self.uploads = tuple(self._side.completed(self.uploads))
        # If a worker holds another state, so are its updates. It is given the right state first.
        told = {m.name: upload.state for m, upload in zip(members, self.uploads, strict=True)}
        self._owner.states.confirm(told, self._side.expected_checks(final=False))
        await self._refuse_senseless()
        self._side.agree(self.uploads, self._owner.established)
        if self._multicast is not None:
            assignment = self._assignment
            listening = {m: k for k, m in enumerate(members) if m.name in assignment.listeners and m.hears}
            await self._multicast.begin(assignment.number, self._number, self._side, listening)
            self._listeners = frozenset(listening)

    async def _refuse_senseless(self) -> None:
        """Exclude members with a loss, penalty or residual that cannot be; ReplanError if there is one."""
        found = False
        for member, upload in zip(self._assignment.members, self.uploads, strict=True):
            told = *(("loss", loss) for loss in upload.losses), ("penalty", upload.penalty)
            wrong = [(what, value) for what, value in told if not 0.0 <= value < math.inf]
            if not upload.residual >= 0.0:
                wrong.append(("residual", upload.residual))
            if wrong:
                (what, value), *_ = wrong
                complaint = f"{member.connection.peer} told a {what} of {value}, which cannot be"
                await self._peers.lose(member, RemoteProtocolError(complaint), excluded=True)
                found = True
        if found:
            raise ReplanError

    async def ranges(self, last: bool) -> AsyncIterator[int]:
        """Combine the rows that come up, and yield the ranges that may go down, in order.

        Parameters
        ----------
        last : bool
            Whether the round ends the run.

        Raises
        ------
        IntegrityError
            The server decoded other vectors than workers computed.
        ReplanError
            A member is lost.
        """
        side = self._side
        rows: Sequence[Bytes] = [upload.rows[0] for upload in self.uploads]
        for i in range(len(side.ranges)):
            if i:
                rows = await self._range(i)
            if i + 1 == len(side.ranges):
                self.arrived = time.perf_counter()
            await self._owner.putting.do(side.put, i, rows)
            if side.streams:
                yield i
        # Free the memory: fast workers may send the next round's rows while slow ones still receive this
        # round's.
        del rows
        if not side.streams:
            await self._owner.finishing.do(side.finish, last)
            for i in range(len(side.down_ranges)):
                yield i

    def send(self, i: int, then: Mapping[Member, AfterRound]) -> None:
        """Write range `i` of each member's rows; `then` has each member's order for after the round."""
        side, plan = self._side, self._assignment.number
        for k, member in enumerate(self._assignment.members):
            if member in self._listeners:
                if not i:
                    downlink = Downlink(plan, self._number, then[member], side.digest(k), grouped=True)
                    self._peers.write(member, downlink)
                continue
            rows = side.rows(k, i)
            size = sum(row.nbytes for row in rows)
            if not i:
                rest = side.downlink_bytes(k) - size
                message: Message = Downlink(plan, self._number, then[member], side.digest(k), rows, rest=rest)
            elif size:
                message = MoreRows(plan, self._number, rows)
            else:
                continue
            self._peers.write(member, message)
        if self._multicast is not None:
            self._multicast.ready(i + 1)

    async def _uplink(self, k: int) -> Upload:
        """The upload of member `k`, with the rows of the first range."""
        member = self._assignment.members[k]
        uplink = await self._peers.receive(member, Uplink)
        self._owner.note_uplink(member.name, asyncio.get_running_loop().time() - self._began)
        self._check_place(member, uplink)
        digests = tuple(
            uplink.digests[start : start + VECTOR_DIGEST_BYTES]
            for start in range(0, len(uplink.digests), VECTOR_DIGEST_BYTES)
        )
        rows = self._shaped(k, 0, uplink.body)
        size = rows.nbytes + uplink.rest
        scalars = uplink.losses, uplink.penalty, uplink.residual
        upload = Upload((rows,), size, digests, *scalars, uplink.state, uplink.confirmation)
        self._side.check(k, upload)
        return upload

    async def _range(self, i: int) -> list[Bytes]:
        """Range `i` of the rows of all members."""
        members = self._assignment.members
        return await self._peers.ask_all({member: self._more(k, i) for k, member in enumerate(members)})

    async def _more(self, k: int, i: int) -> Bytes:
        """Range `i` of the rows of member `k`, which has sent its upload."""
        count, width = self._side.uplink_range(k, i)
        if not count:
            return np.empty((0, width), np.uint8)
        member = self._assignment.members[k]
        more = await self._peers.receive(member, MoreRows)
        self._check_place(member, more)
        return self._shaped(k, i, more.body)

    def _check_place(self, member: Member, message: Uplink | MoreRows) -> None:
        """Raise RemoteProtocolError unless a message is for this plan and round."""
        if (message.plan, message.round) != (self._assignment.number, self._number):
            raise RemoteProtocolError(
                f"{member.connection.peer} sent round {message.round} of plan {message.plan} "
                f"in round {self._number} of plan {self._assignment.number}"
            )

    def _shaped(self, k: int, i: int, body: Bytes) -> Bytes:
        """These bytes, reshaped as the rows of member `k` in range `i`."""
        count, width = self._side.uplink_range(k, i)
        if body.nbytes != count * width:
            raise RemoteProtocolError(
                f"{self._assignment.members[k].connection.peer} sent {body.nbytes} bytes of rows in a range, "
                f"the plan says {count * width}"
            )
        return body.reshape(count, width)
