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
from dataclasses import replace

from asyncdmtl.arrays import Bytes
from asyncdmtl.errors import DisagreementError, RemoteProtocolError, StateError
from asyncdmtl.exchange.sides import ServerSide, absentees, arrived
from asyncdmtl.exchange.upload import Upload
from asyncdmtl.net.event_loop import AdaptiveExecutor
from asyncdmtl.protocol.messages.registry import AfterRound, Downlink, Message, MoreRows, Uplink
from asyncdmtl.server.assignment import Assignment
from asyncdmtl.server.believed_states import BelievedStates
from asyncdmtl.server.first_rows import FirstRows
from asyncdmtl.server.lateness import LateUpload
from asyncdmtl.server.link_speeds import LinkSpeeds
from asyncdmtl.server.member import Member
from asyncdmtl.server.multicast_server import MulticastServer
from asyncdmtl.server.peers import Peers, ReplanError
from asyncdmtl.server.row_collection import RowCollection
from asyncdmtl.server.state_requests import StateRequests

# The share of the last round in the moving average of a worker's seconds: some five rounds count.
NEW_SHARE = 0.2


class RowTransfer:
    """Transfers the rows of all rounds of a run.

    Parameters
    ----------
    peers : Peers
    states : BelievedStates
        Compares the states that members hold.
    requests : StateRequests
        Takes the states that members give between their rows.
    multicast : MulticastServer, optional
        Sends the rows that several members need to a group.

    Attributes
    ----------
    uplink_seconds : dict of worker to float
        Seconds from the beginning of a round until the worker's uplink begins: a moving average.
    speeds : LinkSpeeds
        The speeds of members and links, if they are measured.
    lateness : Lateness
        The members that are late, under plans that tolerate silent workers.
    """

    def __init__(
        self,
        peers: Peers,
        states: BelievedStates,
        requests: StateRequests,
        multicast: MulticastServer | None = None,
    ) -> None:
        self.peers = peers
        self.states = states
        self.multicast = multicast
        self.uplink_seconds: dict[str, float] = {}
        self.requests = requests
        self.lateness = requests.lateness
        self.speeds = LinkSpeeds()
        # The last assignment whose plan tolerates silent workers.
        self._tolerant: Assignment | None = None
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
        transfer = RoundTransfer(self, assignment, number, self._collection(assignment, number))
        try:
            await transfer.begin()
            yield transfer
        finally:
            await transfer.end()
        for member in assignment.members:
            self.established.setdefault(member.name, number)
        if not assignment.plan.silent:
            await self.peers.drain(assignment.members)

    def _collection(self, assignment: Assignment, number: int) -> RowCollection:
        """The collection of the rows of a round: from all members, or from the first that suffice."""
        if not assignment.plan.silent:
            return RowCollection(self.peers, assignment, number, self.note_uplink)
        if assignment is not self._tolerant:
            self._tolerant = assignment
            self.lateness.begin(assignment, number, asyncio.get_running_loop().time())
        return FirstRows(self.peers, assignment, number, self.note_uplink, self.lateness, self.requests)

    def note_uplink(self, member: Member, uplink: Uplink, seconds: float) -> None:
        """Note that the uplink of a member began so many seconds after its round."""
        worker = member.name
        if uplink.timing:
            computing, down = uplink.timing
            self.speeds.note(worker, computing, member.connection.link.arrivals.rate(), down)
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
    uploads : tuple of Upload or None
        The uploads of all members that were waited for, in the order of the plan, with the rows of the first
        range.
    arrived : float
        The moment at which the last rows of all members had arrived, on the clock of `time.perf_counter`.
    over : bool
        Whether there is no such round: the members of a blind run have found that training is over.
    """

    def __init__(
        self, owner: RowTransfer, assignment: Assignment, number: int, collection: RowCollection
    ) -> None:
        self.uploads: tuple[Upload | None, ...] = ()
        self.arrived = math.nan
        self.over = False
        self._owner = owner
        self._peers = owner.peers
        self._multicast = owner.multicast
        self._assignment = assignment
        self._side = assignment.side
        self._number = number
        self._collection = collection
        self._listeners: frozenset[Member] = frozenset()
        # The workers whose rows are not in the range that is being combined.
        self._absent: tuple[int, ...] = ()

    async def begin(self) -> None:
        """Receive the uploads, and compare them; then begin to send to the group, if there is one."""
        members = self._assignment.members
        found = await self._collection.uploads()
        if self._collection.done:
            await self._end(found)
            return
        self.uploads = tuple(self._side.completed(found))
        # If a worker holds another state, so are its updates. It is given the right state first.
        told = {members[k].name: upload.state for k, upload in arrived(self.uploads)}
        self._owner.states.confirm(told, self._side.expected_checks(final=False))
        await self._refuse_senseless(arrived(self.uploads))
        self._side.agree(self.uploads, self._owner.established)
        if self._assignment.plan.silent:
            self._owner.lateness.keep(self._number, self.uploads)
        await self._compare_late()
        exchanging = self._assignment.exchanging
        self._listeners = frozenset(member for member in members if member.name in exchanging)
        if self._multicast is not None:
            assignment = self._assignment
            listening = {m: k for k, m in enumerate(members) if m.name in assignment.listeners and m.hears}
            await self._multicast.begin(assignment.number, self._number, self._side, listening)
            self._listeners |= frozenset(listening)

    async def _end(self, found: Sequence[Upload | None]) -> None:
        """Note that training is over: all members of a blind run have the same numbers, and found the same.

        Raises
        ------
        ReplanError
            A few members found otherwise than most, and are excluded.
        StateError
            As many found the one as the other.
        """
        members = self._assignment.members
        ended = [member for member, upload in zip(members, found, strict=True) if upload is None]
        going_on = [member for member in members if member not in ended]
        if not going_on:
            self.over = True
            return
        if len(ended) == len(going_on):
            first, others = (", ".join(member.name for member in half) for half in (ended, going_on))
            raise StateError(
                f"training was over at {first}, and went on at {others}: a number in memory was corrupted, "
                "or a worker is dishonest",
                workers=tuple(member.name for member in members),
                mendable=False,
            )
        odd, told = ended, "said that training was over, and most workers went on"
        if len(ended) > len(going_on):
            odd, told = going_on, "went on when training was over at most workers"
        for member in odd:
            error = RemoteProtocolError(f"{member.connection.peer} {told}")
            await self._peers.lose(member, error, excluded=True)
        raise ReplanError

    @property
    def on_time(self) -> Sequence[Member]:
        """The members that were waited for."""
        return [self._assignment.members[k] for k, _ in arrived(self.uploads)]

    async def _compare_late(self) -> None:
        """Compare the uploads that came late with those that were used.

        Raises
        ------
        StateError
            A late member holds another state of the training than most.
        DisagreementError
            A late holder of a partition computed another update than was used.
        ReplanError
            A late member told what cannot be.
        """
        if not self._assignment.plan.silent:
            # What is left is of a plan before, which tolerated silent workers, and has other members.
            return
        lateness = self._owner.lateness
        uploads, lateness.uploads = lateness.uploads, []
        for late in uploads:
            member, kept = self._assignment.members[late.worker], lateness.past(late.round)
            if kept is None:
                continue
            await self._refuse_senseless([(late.worker, late.upload)])
            self._owner.states.compare(member.name, late.upload.state, late.round)
            kept[late.worker] = replace(late.upload, rows=())
            _compare_with_used(self._side, kept, late, member.name, self._owner.established)

    async def end(self) -> None:
        """End the round."""
        await self._collection.end()

    async def _refuse_senseless(self, uploads: Sequence[tuple[int, Upload]]) -> None:
        """Exclude members with a loss, penalty or residual that cannot be; ReplanError if there is one."""
        found = False
        for k, upload in uploads:
            member = self._assignment.members[k]
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
        rows: Sequence[Bytes | None] = [None if upload is None else upload.rows[0] for upload in self.uploads]
        for i in range(len(side.ranges)):
            if i:
                rows = await self._collection.range(i)
                await self._compare_late()
            self._absent = absentees(rows) if side.streams else ()
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
        side, plan, lateness = self._side, self._assignment.number, self._owner.lateness
        requests = self._owner.requests
        tolerant, absent = self._assignment.plan.silent > 0, self._absent
        if tolerant and not i:
            lateness.withhold(self._assignment.members, self._number)
        for k, member in enumerate(self._assignment.members):
            held = tolerant and not lateness.is_sent(member)
            if held and not requests.serves(member):
                continue
            if member in self._listeners:
                if not i:
                    told = side.told(k, relay=bool(member.behind))
                    downlink = Downlink(
                        plan, self._number, then[member], side.digest(k), grouped=True, told=told
                    )
                    self._peers.write(member, downlink)
                continue
            rows = side.rows(k, i)
            size = sum(row.nbytes for row in rows)
            if not i:
                rest = side.downlink_bytes(k) - size
                head = plan, self._number, then[member], side.digest(k)
                told = side.told(k, relay=bool(member.behind))
                message: Message = Downlink(*head, rows, rest=rest, absent=absent, told=told)
            elif size:
                message = MoreRows(plan, self._number, rows, absent=absent)
            else:
                continue
            if held:
                requests.hold(member, message)
            else:
                self._peers.write(member, message)
        if self._multicast is not None:
            self._multicast.ready(i + 1)


def _compare_with_used(
    side: ServerSide,
    uploads: Sequence[Upload | None],
    late: LateUpload,
    name: str,
    established: Mapping[str, int],
) -> None:
    """Compare a late upload with those of its round that were used, which are among `uploads`.

    Raises
    ------
    DisagreementError
        The late worker is in the minority; or, undecided, the updates that were used may be wrong.
    """
    try:
        side.compare(uploads, established)
    except DisagreementError as error:
        if set(error.odd) == {name} and not error.undecided:
            raise
        # A round that is over cannot be made again, and nobody has the state before it.
        raise DisagreementError(
            f"{error}; round {late.round} went on before the upload of worker {name!r} came, and what it "
            "used may be wrong: with --silent 0, all holders are compared before a round goes on",
            odd=error.odd,
            undecided=True,
        ) from error
