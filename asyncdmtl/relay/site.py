"""The nodes behind a relay: the workers and relays that are connected to it, during one connection upward."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from asyncdmtl.arrays import Bytes
from asyncdmtl.blinding.sealed import SEALED_STATE_BYTES
from asyncdmtl.digests import Digest
from asyncdmtl.errors import RemoteProtocolError, StateError
from asyncdmtl.exchange.states import States
from asyncdmtl.exchange.upload import Upload
from asyncdmtl.learning.problem import Problem
from asyncdmtl.plan.placement import natural_key
from asyncdmtl.plan.serialization import recipe_and_digest
from asyncdmtl.protocol.messages.registry import (
    AfterRound,
    Assign,
    AwaitRestore,
    Done,
    Downlink,
    MoreRows,
    Restore,
    Snapshot,
    StateTransfer,
    Uplink,
)
from asyncdmtl.relay.nodes import OPTION, Nodes, SiteChangedError
from asyncdmtl.relay.sides import RelaySide
from asyncdmtl.relay.site_group import SiteGroup
from asyncdmtl.server.member import Member, without_digests
from asyncdmtl.server.membership import Membership
from asyncdmtl.server.row_collection import check_place, shaped

log = logging.getLogger(__name__)


class Site(Nodes):
    """The nodes behind a relay that take part over one connection to the parent.

    Parameters
    ----------
    membership : Membership
    members : sequence of Member
        The nodes, in the order of plans.
    digest : Digest
        The digests of the run.
    seconds : float
        The most seconds that a node may take to answer.
    group : SiteGroup
    blind : bool
        Whether only the nodes know what they compute, and when training ends.

    Attributes
    ----------
    round, over : int, bool
        The farthest round of a node's state of the training, and whether the training ended before it.
    state : bytes
        The check of that state that most of these nodes told.
    """

    def __init__(
        self,
        membership: Membership,
        members: Sequence[Member],
        digest: Digest,
        seconds: float,
        group: SiteGroup,
        *,
        blind: bool = False,
    ) -> None:
        super().__init__(membership, members, seconds)
        self._group = group
        self._blind = blind
        self._digest = digest
        self._plan = -1
        able = [m for m in self.members if not m.helps] or list(self.members)
        self.round, self.over = max((m.round, m.over) for m in able)
        there = [m.state for m in able if (m.round, m.over) == (self.round, self.over)]
        # The state before the first round is the same everywhere, whether a node has met a plan or not.
        self.state = _most_told(there) if self.round else b""
        for m in self.members:
            same = (m.round, m.over) == (self.round, self.over)
            m.current = same and (m.state == self.state or not self.round)

    @property
    def giver(self) -> Member:
        """The node that gives the state of the training after a round."""
        return next(m for m in self.members if not m.helps)

    async def assign(
        self, side: RelaySide, problem: Problem, place: tuple[int, bool], first: StateTransfer
    ) -> Bytes | None:
        """Send all nodes the plan; return the state of the training if the parent wants it.

        Parameters
        ----------
        side : RelaySide
        problem : Problem
        place : tuple of int and bool
            The round at which the plan begins, and whether the training is over.
        first : StateTransfer
            The parent's order. After TAKE, `restore` must follow.

        Raises
        ------
        SiteChangedError
            A node is lost.
        """
        if first is StateTransfer.TAKE:
            await self._send_plan(side, problem, place, dict.fromkeys(self.members, first))
            return None
        # A blind server learns that training is over from the workers.
        over = self.over if self._blind and not place[1] else place[1]
        if (place[0], over) != (self.round, self.over):
            raise RemoteProtocolError(f"the plan is for round {place[0]}, this site is in {self.round}")
        takers = [m for m in self.members if not m.current]
        orders = {m: StateTransfer.KEEP if m.current else StateTransfer.TAKE for m in self.members}
        giver = next(m for m in self.members if m.current and not (m.helps and self.round))
        gives = bool(takers) or first is StateTransfer.GIVE
        if gives:
            orders[giver] = StateTransfer.GIVE
        await self._send_plan(side, problem, place, orders)
        if not gives:
            return None
        state = await self.given(giver, problem)
        if takers:
            await self._restore(takers, Restore(self._digest(state), state))
        return state if first is StateTransfer.GIVE else None

    def state_bytes(self, problem: Problem) -> int:
        """Bytes of a state of the training as nodes give it."""
        return problem.state_bytes + (SEALED_STATE_BYTES if self._blind else 0)

    async def restore(self, restore: Restore, place: tuple[int, bool]) -> None:
        """Hand the parent's state of the training to all nodes, which were told to take it."""
        await self._restore(self.members, restore)
        self.round, self.over = place

    async def given(self, giver: Member, problem: Problem) -> Bytes:
        """The state of the training from a node that was told to send it."""
        (snapshot,) = await self.ask({giver: self.receive(giver, Snapshot)})
        fits = (snapshot.round, snapshot.body.nbytes) == (self.round, self.state_bytes(problem))
        if not fits or self._digest(snapshot.body) != snapshot.digest:
            await self.lose(
                giver, RemoteProtocolError(f"{giver.connection.peer} gave no state of this round")
            )
            raise SiteChangedError
        return snapshot.body

    async def uploads(self, side: RelaySide) -> list[Upload] | None:
        """The uploads of all nodes, with the rows of the first range.

        None if all nodes of a blind run have found that training is over. Their messages stay in the inbox.

        Raises
        ------
        StateError
            As many nodes found this as did not.
        """
        each = {member: self._upload(side, k) for k, member in enumerate(self.members)}
        found = await self.ask(each)
        uploads = [upload for upload in found if upload is not None]
        if len(uploads) < len(self.members):
            await self.agree_on_end([upload is None for upload in found])
            self.over = True
            return None
        # All nodes have the rows of the round before.
        await self._group.begin(self._plan, self.round, side.below, self.members)
        return uploads

    async def rows(self, side: RelaySide, i: int) -> list[Bytes]:
        """Range `i`, which is not the first one, of the rows of all nodes."""
        return await self.ask({member: self._more(side, k, i) for k, member in enumerate(self.members)})

    async def send_range(self, side: RelaySide, i: int, then: Mapping[Member, AfterRound]) -> None:
        """Send each node range `i` of its rows."""
        below = side.below
        for k, member in enumerate(self.members):
            served = self._group.serves(member)
            if member.connection.lost or (served and i):
                continue
            rows = () if served else below.rows(k, i)
            size = sum(row.nbytes for row in rows)
            if not i:
                rest = 0 if served else below.downlink_bytes(k) - size
                told = below.told(k, relay=bool(member.behind))
                head = self._plan, self.round, then[member], below.digest(k)
                member.connection.write(Downlink(*head, rows, rest=rest, grouped=served, told=told))
            elif size:
                member.connection.write(MoreRows(self._plan, self.round, rows))
        self._group.ready(i + 1)
        await self.drain()

    async def done(self, side: RelaySide) -> Done:
        """The end of the training at all nodes, as the relay reports it.

        Raises
        ------
        SiteChangedError
            A node is lost, or holds other final models than the others.
        """
        done = dict(
            zip(self.members, await self.ask({m: self.receive(m, Done) for m in self.members}), strict=True)
        )
        holders = [m for m in self.members if not m.helps] or list(self.members)
        first, believed = done[holders[0]], _most_told([done[m].digest for m in holders])
        known = side.below.expected_checks(final=True)
        right = dict(zip(self.members, known, strict=False)) if known else dict.fromkeys(holders, believed)
        if odd := [m for m in holders if done[m].digest != right[m]]:
            for member in odd:
                reason = f"{member.connection.peer} has other final models than it should at this site"
                await self.lose(member, RemoteProtocolError(reason))
            raise SiteChangedError
        tests = {name: sums for each in done.values() for name, sums in each.tests.items()}
        critical = next((d.critical_strength for d in done.values() if d.critical_strength is not None), None)
        return Done(self._plan, side.final_check(first.digest), first.outcome, tests, critical)

    async def _send_plan(
        self,
        side: RelaySide,
        problem: Problem,
        place: tuple[int, bool],
        first: Mapping[Member, StateTransfer],
    ) -> None:
        self._plan += 1
        await self._group.follow(side.below, self.members, self._seconds)
        recipe, plan_digest = recipe_and_digest(side.below.plan)
        untold = without_digests(problem.infos)
        messages: dict[Member, Assign] = {}
        for k, member in enumerate(self.members):
            needed = max(side.below.uplink_bytes(k), self.state_bytes(problem))
            session = member.connection.session
            session.body_limit = max(session.body_limit, needed)
            head = (self._plan, *place, first[member])
            infos = member.told_infos(problem.infos, untold)
            # The ranges at both levels are those of the parent's plan.
            grouped = side.below.grouped
            messages[member] = Assign(
                *head, recipe, plan_digest, infos, grouped=grouped, detailed=True, origin=side.origin
            )
            member.connection.inbox.clear()
        await self.ask(
            {m: m.connection.send(message, self._seconds, OPTION) for m, message in messages.items()}
        )

    async def _restore(self, takers: Sequence[Member], restore: Restore) -> None:
        async def hand(taker: Member) -> None:
            await self.receive(taker, AwaitRestore)
            await taker.connection.send(restore, self._seconds, OPTION)

        await self.ask({taker: hand(taker) for taker in takers})
        for taker in takers:
            taker.current = True

    async def _upload(self, side: RelaySide, k: int) -> Upload | None:
        """The upload of a node; None if it is done instead, as it may be in a blind run."""
        member, below = self.members[k], side.below
        wanted = (Uplink, Done) if self._blind else (Uplink,)
        uplink: Uplink | Done = await member.connection.receive(wanted, self._seconds, OPTION)
        if isinstance(uplink, Done):
            member.connection.inbox.put_back(uplink)
            return None
        check_place(member, uplink, (self._plan, self.round))
        rows = shaped(member, uplink.body, below.uplink_range(k, 0))
        upload = below.layout(k).unpack(uplink.told, (rows,), rows.nbytes + uplink.rest)
        below.check(k, upload)
        return upload

    async def _more(self, side: RelaySide, k: int, i: int) -> Bytes:
        count, width = shape = side.below.uplink_range(k, i)
        if not count:
            return np.empty((0, width), np.uint8)
        more = await self.receive(self.members[k], MoreRows)
        check_place(self.members[k], more, (self._plan, self.round))
        return shaped(self.members[k], more.body, shape)


def compare_states(
    names: Sequence[str], uploads: Sequence[Upload], states: States, expected: Sequence[bytes] | None = None
) -> None:
    """Compare the checks of the states that nodes hold.

    Parameters
    ----------
    names : sequence of str
        The nodes.
    uploads : sequence of Upload
        Theirs, in the same order.
    states : States
    expected : sequence of bytes, optional
        The checks that they must send, in the same order, if the relay has the state itself.

    Raises
    ------
    StateError
        Some nodes hold another state than most, or than the relay, or no state has a majority.
    """
    told = {name: upload.state for name, upload in zip(names, uploads, strict=True)}
    if expected is not None:
        pairs = zip(told.items(), expected, strict=False)
        odd, mendable, of = tuple(name for (name, check), right in pairs if check != right), True, "the relay"
    else:
        majority = states.majority(told)
        odd, mendable = (tuple(told), False) if majority is None else (majority.odd, True)
        of = "most workers at this site"
    if odd:
        reason = f"the state of the training at {', '.join(map(repr, odd))} is not that of {of}"
        raise StateError(reason, workers=odd, mendable=mendable)


def warn_of_doubts(relay: str, stored: Mapping[str, Sequence[str]], said: Collection[str]) -> None:
    """Log which nodes hold partitions that the parent's plan does not give the relay.

    Parameters
    ----------
    relay : str
    stored : mapping of node to partitions
    said : collection of str
        The partitions that the plan gives the relay.
    """
    doubted = {name for held in stored.values() for name in held} - set(said)
    if doubted:
        names = [node for node, held in stored.items() if doubted & set(held)]
        log.warning(
            "relay %s: most holders elsewhere computed other updates of %s than %s", relay,
            sorted(doubted, key=natural_key), ", ".join(names),
        )  # fmt: skip


def _most_told(values: Sequence[bytes]) -> bytes:
    """The value that is there most often; of several, the least."""
    return max(sorted(set(values)), key=values.count)
