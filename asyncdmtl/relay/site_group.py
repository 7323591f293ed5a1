"""The multicast group of a site, by which a relay serves the nodes behind it that hear it."""

from __future__ import annotations

from collections.abc import Sequence

from asyncdmtl.exchange.coded_server import CodedServerSide
from asyncdmtl.server.assignment import choose_listeners
from asyncdmtl.server.member import Member
from asyncdmtl.server.multicast_server import MulticastServer


class SiteGroup:
    """Sends the rows of rounds to a site's group.

    Parameters
    ----------
    multicast : MulticastServer or None
        None if the relay has no group.
    """

    def __init__(self, multicast: MulticastServer | None) -> None:
        self._multicast = multicast
        self._listeners: frozenset[str] = frozenset()
        # The ranges of the round that are not sent yet.
        self._left = 0

    async def follow(self, side: CodedServerSide, members: Sequence[Member], seconds: float) -> None:
        """Serve the members that hear the group under a new plan, if that costs less than rows over TCP.

        Parameters
        ----------
        side : CodedServerSide
            The side towards the members. Unless it is `grouped`, none is served.
        members : sequence of Member
            In the order of the plan.
        seconds : float
            The most seconds that members may take for the rows of the plan before.
        """
        if self._multicast is None:
            return
        # A round that is not complete will be made again.
        if not self._left:
            await self._multicast.settle(seconds)
        await self._multicast.stop()
        self._left = 0
        hearing = [k for k, member in enumerate(members) if member.hears and not member.helps]
        names, _ = choose_listeners(side.plan, hearing if side.grouped else [])
        self._listeners = frozenset(names)

    async def begin(self, plan: int, round_: int, side: CodedServerSide, members: Sequence[Member]) -> None:
        """Begin to send a round."""
        if self._multicast is not None:
            listening = {member: k for k, member in enumerate(members) if self.serves(member)}
            await self._multicast.begin(plan, round_, side, listening)
            self._left = len(side.down_ranges)

    def serves(self, member: Member) -> bool:
        """Whether a member receives its rows from the group."""
        return member.hears and member.name in self._listeners

    def ready(self, count: int) -> None:
        """Note that the first `count` ranges of the round may be sent."""
        if self._multicast is not None:
            self._multicast.ready(count)
            self._left -= 1
