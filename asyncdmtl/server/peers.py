"""The server's side of talking to all workers at once: whoever fails is gone, and the others go on."""

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
    RemoteProtocolError,
)
from asyncdmtl.protocol.messages.registry import Assign, Message
from asyncdmtl.server.member import Member, is_final
from asyncdmtl.server.membership import Membership
from asyncdmtl.server.training_progress import TrainingProgress

Answer = TypeVar("Answer")
Wanted = TypeVar("Wanted", bound=Message)

OPTION = "--round-timeout"

# A worker that breaks a rule of the protocol so often is done without. (Where only bytes were corrupted on
# their way, it is not to blame.)
MOST_OFFENCES = 3


class ReplanError(Exception):
    """The round must be made again, with another assignment."""


class Peers:
    """Those who take part in a run.

    Parameters
    ----------
    membership : Membership
    progress : TrainingProgress
        Where losses are noted.
    seconds : float
        How long a member may take to answer, and to take what it is sent; the option --round-timeout sets it.
    """

    def __init__(self, membership: Membership, progress: TrainingProgress, seconds: float) -> None:
        self.membership = membership
        self._progress = progress
        self._seconds = seconds
        self._offences: Counter[str] = Counter()

    async def receive(self, member: Member, wanted: type[Wanted]) -> Wanted:
        """The next message of a member."""
        return await member.connection.receive((wanted,), self._seconds, OPTION)

    async def send(self, member: Member, message: Message) -> None:
        """Send one member a message; if it is a plan, forget what came for the plan before."""
        if isinstance(message, Assign):
            member.connection.inbox.clear()
        await member.connection.send(message, self._seconds, OPTION)

    async def send_all(self, messages: Mapping[Member, Message]) -> None:
        """Send each member its message. Who cannot take it is lost, which shows when it should answer."""
        await _despite_losses(self.send(member, message) for member, message in messages.items())

    def write(self, member: Member, message: Message) -> None:
        """Begin to send a member a message, if it is still there."""
        if not member.connection.lost:
            member.connection.write(message)

    async def drain(self, members: Iterable[Member]) -> None:
        """Wait until members have taken what was written. Who cannot is lost, which shows later."""
        waiting = (member.connection for member in members if not member.connection.link.drained)
        await _despite_losses(connection.drain(self._seconds, OPTION) for connection in waiting)

    async def ask_all(self, answers: Mapping[Member, Awaitable[Answer]]) -> list[Answer]:
        """What each member answers, in their order; ReplanError if one of them is lost instead."""
        found = await self.hear(answers)
        if len(found) < len(answers):
            raise ReplanError
        return list(found.values())

    async def hear(self, answers: Mapping[Member, Awaitable[Answer]]) -> dict[Member, Answer]:
        """What the members answer; those who fail are lost."""
        results = await asyncio.gather(*answers.values(), return_exceptions=True)
        found: dict[Member, Answer] = {}
        for member, result in zip(answers, results, strict=True):
            if isinstance(result, AsyncDMTLError):
                await self.lose(member, result)
            elif isinstance(result, BaseException):
                raise result
            else:
                found[member] = result
        return found

    async def lose(self, member: Member, error: AsyncDMTLError) -> None:
        """Go on without a member.

        It may come back unless it is to blame: too slow, odd, or out of order again and again.
        """
        member.current = False
        self._progress.note(member.name, type(error).__name__, str(error))
        corrupted = isinstance(error, IntegrityError) and not isinstance(error, DisagreementError)
        if isinstance(error, RemoteProtocolError) and not isinstance(error, CorruptionError):
            self._offences[member.name] += 1
        offends = self._offences[member.name] >= MOST_OFFENCES
        blameless = (member.connection.lost and not offends) or corrupted
        back = blameless and not is_final(error)
        if back:
            member.missed_since = asyncio.get_running_loop().time()
        await self.membership.lose(member, error, back=back, excluded=not blameless)


async def _despite_losses(sending: Iterable[Awaitable[None]]) -> None:
    for result in await asyncio.gather(*sending, return_exceptions=True):
        if isinstance(result, BaseException) and not isinstance(result, AsyncDMTLError):
            raise result
