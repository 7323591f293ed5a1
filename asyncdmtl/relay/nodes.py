"""The nodes behind a relay, and the exchange of messages with all of them. One that fails is lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from asyncdmtl.errors import AsyncDMTLError, IntegrityError, PeerError, RemoteProtocolError, StateError
from asyncdmtl.protocol.messages.registry import Message
from asyncdmtl.server.member import Member
from asyncdmtl.server.membership import Membership
from asyncdmtl.server.wants import unserved

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")
Wanted = TypeVar("Wanted", bound=Message)

# The option that limits every wait for a node.
OPTION = "--round-timeout"


class SiteChangedError(Exception):
    """A node was lost or joined: the relay connects to its parent anew, for the nodes that are there."""


class Nodes:
    """The workers and relays that are connected to a relay.

    Parameters
    ----------
    membership : Membership
    members : sequence of Member
        The nodes, in the order of plans.
    seconds : float
        The most seconds that a node may take to answer.
    """

    def __init__(self, membership: Membership, members: Sequence[Member], seconds: float) -> None:
        self.members = tuple(members)
        self._membership = membership
        self._seconds = seconds

    @property
    def stored(self) -> dict[str, tuple[str, ...]]:
        """The partitions that each node stores."""
        return {member.name: member.partitions for member in self.members}

    @property
    def helpers(self) -> list[str]:
        """The nodes that want no models."""
        return [member.name for member in self.members if member.helps]

    @property
    def wants(self) -> str:
        """The models that the relay wants for the nodes, as in `Declare`."""
        words = {member.wants for member in self.members if not member.helps}
        if not words:
            return "none"
        return next((word for word in ("own", "all") if word in words), "")

    async def refuse_unserved(self, strategy: str, update: str) -> None:
        """Lose the nodes that a run cannot give what they want; raises SiteChangedError if there are some.

        Parameters
        ----------
        strategy, update : str
            As for `check_wants`.
        """
        errors = unserved({member.name: member.wants for member in self.members}, strategy, update)
        for member in self.members:
            if member.name in errors:
                await self._membership.lose(member, errors[member.name], back=False)
        if errors:
            raise SiteChangedError

    @property
    def workers(self) -> tuple[str, ...]:
        """The names of all workers at the site, those behind other relays included."""
        return tuple(name for m in self.members for name in m.stands_for)

    def check(self) -> None:
        """Raise SiteChangedError if a node has joined or left."""
        if self._membership.newcomers(held=True) or any(member.gone for member in self.members):
            raise SiteChangedError

    async def unchanged(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        """The result of some work; SiteChangedError if a node joins or leaves meanwhile."""
        working = asyncio.create_task(work)
        working.add_done_callback(lambda _: self._membership.note_change())
        try:
            while not working.done():
                self.check()
                await self._membership.change(None)
            return working.result()
        finally:
            working.cancel()
            await asyncio.wait([working])
            if not working.cancelled():
                working.exception()

    async def send_all(self, message: Message) -> None:
        """Send all nodes a message."""
        for member in self.members:
            if not member.connection.lost:
                member.connection.write(message)
        await self.drain()

    async def drain(self) -> None:
        """Wait until all nodes have received all bytes."""
        waiting = [m for m in self.members if not m.connection.lost and not m.connection.link.drained]
        if waiting:
            await self.ask({m: m.connection.drain(self._seconds, OPTION) for m in waiting})

    async def receive(self, member: Member, wanted: type[Wanted]) -> Wanted:
        """The next message of a node."""
        return await member.connection.receive((wanted,), self._seconds, OPTION)

    async def ask(self, answers: Mapping[Member, Awaitable[Answer]]) -> list[Answer]:
        """The answers of nodes, in their order; SiteChangedError if one of them is lost."""
        results = await asyncio.gather(*answers.values(), return_exceptions=True)
        found: list[Answer] = []
        for member, result in zip(answers, results, strict=True):
            if isinstance(result, AsyncDMTLError):
                await self.lose(member, result)
            elif isinstance(result, BaseException):
                raise result
            else:
                found.append(result)
        if len(found) < len(answers):
            raise SiteChangedError
        return found

    @property
    def misled(self) -> list[str]:
        """The nodes that ended because they decoded wrong vectors."""
        failures = {member.name: member.connection.failure for member in self.members}
        return [
            name for name, failure in failures.items()
            if isinstance(failure, PeerError) and failure.exit_code == IntegrityError.exit_code
        ]  # fmt: skip

    async def agree_on_end(self, over: Sequence[bool]) -> None:
        """Lose the nodes of a blind run that found otherwise than most whether training is over.

        Parameters
        ----------
        over : sequence of bool
            What each node found.

        Raises
        ------
        SiteChangedError
            Nodes are lost.
        StateError
            As many found the one as the other.
        """
        ended = [member.name for member, found in zip(self.members, over, strict=True) if found]
        others = [member.name for member in self.members if member.name not in ended]
        if len(ended) == len(others):
            first, second = ", ".join(ended), ", ".join(others)
            told = f"training was over at {first}, and went on at {second}"
            raise StateError(told, workers=[*ended, *others], mendable=False)
        if others:
            odd = min(ended, others, key=len)
            told = f"{', '.join(odd)} found otherwise than most at this site whether training was over"
            await self.refuse(RemoteProtocolError(told), odd, excluded=True)

    async def lose(self, member: Member, error: AsyncDMTLError, *, excluded: bool = False) -> None:
        """Lose a node; unless it is excluded, it may come back."""
        log.warning("worker %s is lost: %s", member.name, error, extra={"worker": member.name})
        await self._membership.lose(member, error, back=not excluded, excluded=excluded)

    async def refuse(self, error: AsyncDMTLError, names: Iterable[str], *, excluded: bool) -> NoReturn:
        """Lose the nodes of these names because of an error, and raise SiteChangedError."""
        for member in self.members:
            if member.name in set(names):
                await self.lose(member, error, excluded=excluded)
        raise SiteChangedError
