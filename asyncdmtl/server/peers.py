"""The exchange of messages with all members at once. A member that fails is lost; the others go on."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Iterable, Mapping
from typing import TypeVar

from asyncdmtl.errors import (
    AsyncDMTLError,
    CorruptionError,
    DisagreementError,
    IntegrityError,
    LinkError,
    PeerError,
    RemoteProtocolError,
)
from asyncdmtl.protocol.messages.registry import Assign, Message, MoreRows, RowsLacking, Snapshot, Uplink
from asyncdmtl.server.absent import Absent
from asyncdmtl.server.losses import Losses
from asyncdmtl.server.member import Member, is_final
from asyncdmtl.server.membership import Membership
from asyncdmtl.server.training_progress import TrainingProgress

Answer = TypeVar("Answer")
Wanted = TypeVar("Wanted", bound=Message)

# The option that limits every wait for a member.
OPTION = "--round-timeout"

# The number of times that a worker may break a rule of the protocol and still come back. Bytes that were
# corrupted on the way do not count, because they are not the worker's fault.
MOST_OFFENCES = 3

# The number of times that a worker's rows or state may differ from their digest. A bad cable corrupts bytes
# now and then; a worker that sends such bytes more often is excluded.
MOST_CORRUPTIONS = 3


class ReplanError(Exception):
    """The round must be made again, under another plan."""


class LackingError(Exception):
    """A member that is not lost cannot get the rows of the last round."""

    def __init__(self, message: RowsLacking) -> None:
        self.message = message
        super().__init__(message.reason)


class Peers:
    """Sends messages to the members of a run, and receives theirs.

    Parameters
    ----------
    membership : Membership
    progress : TrainingProgress
        The progress, which records incidents.
    seconds : float
        The most seconds that a member may take to answer, and to receive a message, as --round-timeout sets.

    Attributes
    ----------
    seconds : float
        As above.
    misled : set of str
        Members that were lost since the last plan because they decoded wrong vectors.
    lacking : dict of Member to RowsLacking
        Members that could not get all rows of a round from others since the last plan.
    absent : Absent
        The workers that were lost and may come back.
    """

    def __init__(self, membership: Membership, progress: TrainingProgress, seconds: float) -> None:
        self.membership = membership
        self.misled: set[str] = set()
        self.lacking: dict[Member, RowsLacking] = {}
        self.absent = Absent()
        self._progress = progress
        self.seconds = seconds
        self._offences: Counter[str] = Counter()
        self._corruptions: Counter[str] = Counter()
        self._losses = Losses()

    async def receive(self, member: Member, wanted: type[Wanted]) -> Wanted:
        """The next message of a member; raises as `receive_any`."""
        return await self.receive_any(member, (wanted,))

    async def receive_past_rows(self, member: Member, wanted: type[Wanted]) -> Wanted:
        """The same, behind uploads, rows and states that came too late, which are dropped."""
        while True:
            message: Wanted | Uplink | MoreRows | Snapshot = await self.receive_any(
                member, (wanted, Uplink, MoreRows, Snapshot)
            )
            if isinstance(message, wanted):
                return message

    async def receive_any(self, member: Member, wanted: tuple[type[Wanted], ...]) -> Wanted:
        """The next message of a member, which may be of several kinds.

        Raises
        ------
        LackingError
            The member takes rows from others, and reports that it cannot get them.
        AsyncDMTLError
            As `Connection.receive`.
        """
        kinds = (*wanted, RowsLacking) if member.exchanges else wanted
        message: Wanted | RowsLacking = await member.connection.receive(kinds, self.seconds, OPTION)
        if isinstance(message, RowsLacking):
            raise LackingError(message)
        return message

    async def send(self, member: Member, message: Message) -> None:
        """Send one member a message. If it is a plan, unread messages for the plan before are dropped."""
        if isinstance(message, Assign):
            member.connection.inbox.clear()
        await member.connection.send(message, self.seconds, OPTION)

    async def send_all(self, messages: Mapping[Member, Message]) -> None:
        """Send each member its message. If a member cannot receive it, it is lost when its answer is due."""
        await _despite_losses(self.send(member, message) for member, message in messages.items())

    def write(self, member: Member, message: Message) -> None:
        """Begin to send a member a message, if it is still connected."""
        if not member.connection.lost:
            member.connection.write(message)

    async def drain(self, members: Iterable[Member]) -> None:
        """Wait until members have received all bytes. A member that cannot is lost when its answer is due."""
        waiting = (member.connection for member in members if not member.connection.link.drained)
        await _despite_losses(connection.drain(self.seconds, OPTION) for connection in waiting)

    async def ask_all(self, answers: Mapping[Member, Awaitable[Answer]]) -> list[Answer]:
        """The answers of all members, in their order; ReplanError if one of them is lost."""
        found = await self.hear(answers)
        if len(found) < len(answers):
            raise ReplanError
        return list(found.values())

    async def hear(self, answers: Mapping[Member, Awaitable[Answer]]) -> dict[Member, Answer]:
        """The answers of the members. Members that fail are lost; those that lack rows are noted."""
        results = await asyncio.gather(*answers.values(), return_exceptions=True)
        found: dict[Member, Answer] = {}
        for member, result in zip(answers, results, strict=True):
            if isinstance(result, AsyncDMTLError):
                await self.lose(member, result)
            elif isinstance(result, LackingError):
                member.current = False
                self.lacking[member] = result.message
            elif isinstance(result, BaseException):
                raise result
            else:
                found[member] = result
        return found

    async def lose(self, member: Member, error: AsyncDMTLError, *, excluded: bool = False) -> None:
        """Lose a member; with `excluded`, it may not come back.

        Otherwise it may come back, unless it was too slow, its updates differed from those of other holders,
        it broke rules of the protocol too often, or it was lost too often in one round.
        """
        member.current = False
        number, now = self._progress.round, asyncio.get_running_loop().time()
        if self._losses.too_many(member.name, number, now):
            told = f"{error}; this has happened so often in round {number} that the round is never made"
            error, excluded = LinkError(told, peer=member.name), True
        if isinstance(error, PeerError) and error.exit_code == IntegrityError.exit_code and not member.hears:
            # It decoded wrong vectors. Rows of a multicast group can be forged by others than the senders.
            self._progress.checked = True
            self.misled.add(member.name)
        self._progress.note(member.name, type(error).__name__, str(error))
        self.membership.returns.lost(member.name, self.membership.pace.stood_still)
        corrupted = isinstance(error, IntegrityError) and not isinstance(error, DisagreementError)
        if corrupted:
            self._corruptions[member.name] += 1
            corrupted = self._corruptions[member.name] < MOST_CORRUPTIONS and not excluded
        if isinstance(error, RemoteProtocolError) and not isinstance(error, CorruptionError):
            self._offences[member.name] += 1
        offends = self._offences[member.name] >= MOST_OFFENCES
        blameless = corrupted or (member.connection.lost and not offends and not excluded)
        back = blameless and not is_final(error)
        if back:
            self.absent.note(member, now)
        else:
            self.absent.forget(member)
        await self.membership.lose(member, error, back=back, excluded=not blameless)


async def _despite_losses(sending: Iterable[Awaitable[None]]) -> None:
    for result in await asyncio.gather(*sending, return_exceptions=True):
        if isinstance(result, BaseException) and not isinstance(result, AsyncDMTLError):
            raise result
