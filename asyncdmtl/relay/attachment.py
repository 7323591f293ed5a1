"""One connection of a relay to its parent: the relay joins with its nodes, and makes rounds until it ends.

If a node is lost or joins, the connection ends, and the relay begins anew with the nodes that are there. So a
relay has no state of its own, and one that was killed is as good as one that lost a node.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from asyncdmtl.arithmetic.probe import Machine
from asyncdmtl.arrays import Bytes
from asyncdmtl.blinding.masks import root_of
from asyncdmtl.data.encoding import Encoding
from asyncdmtl.digests import Digest
from asyncdmtl.errors import (
    DisagreementError,
    IntegrityError,
    PlanError,
    RemoteProtocolError,
    StateError,
    UsageError,
)
from asyncdmtl.exchange.states import ExactStates
from asyncdmtl.exchange.upload import Upload
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.tasks import SEALED
from asyncdmtl.learning.trainer import Trainer
from asyncdmtl.net.connection import Connection
from asyncdmtl.net.event_loop import AdaptiveExecutor
from asyncdmtl.plan.placement import natural_key
from asyncdmtl.plan.plan import Plan
from asyncdmtl.plan.serialization import rebuild
from asyncdmtl.protocol.messages.pieces import pieces
from asyncdmtl.protocol.messages.registry import (
    AfterRound,
    Assign,
    AwaitRestore,
    Declare,
    DeclareSome,
    Downlink,
    Finish,
    JoinGroup,
    Message,
    MoreRows,
    Prepare,
    Ready,
    Restore,
    Snapshot,
    StateTransfer,
    Uplink,
)
from asyncdmtl.relay.blind_sides import make_blind_side
from asyncdmtl.relay.gathering import Gathering
from asyncdmtl.relay.nodes import SiteChangedError
from asyncdmtl.relay.options import RelayOptions
from asyncdmtl.relay.parent_rows import ParentRows
from asyncdmtl.relay.sides import RelaySide, groupable
from asyncdmtl.relay.site import Site, compare_states, warn_of_doubts
from asyncdmtl.relay.site_group import SiteGroup
from asyncdmtl.relay.strategies import make_relay_side
from asyncdmtl.worker.joining import join_group
from asyncdmtl.worker.multicast_client import MulticastClient
from asyncdmtl.worker.participation import NewPlan
from asyncdmtl.worker.plan_check import check_recipe

log = logging.getLogger(__name__)

Answer = TypeVar("Answer", bound=Message)
Result = TypeVar("Result")


class Attachment:
    """One connection of a relay to its parent.

    Parameters
    ----------
    connection : Connection
    options : RelayOptions
    gathering : Gathering
    digest : Digest
        The digests of the run.
    note_progress : callable
        Is called when a round was made.
    """

    def __init__(
        self,
        connection: Connection,
        options: RelayOptions,
        gathering: Gathering,
        digest: Digest,
        note_progress: Callable[[], None],
    ) -> None:
        self._up = connection
        self._options = options
        self._gathering = gathering
        self._digest = digest
        self._note_progress = note_progress
        self._limit = options.upward.round_timeout, "--round-timeout"
        self._plan = -1
        self._working = AdaptiveExecutor()
        self._site: Site | None = None
        self._problem: Problem | None = None
        self._side: RelaySide | None = None
        self._group: MulticastClient | None = None

    @property
    def site(self) -> Site:
        """The nodes that take part."""
        assert self._site is not None
        return self._site

    @property
    def side(self) -> RelaySide:
        """The relay's work under the present plan."""
        assert self._side is not None
        return self._side

    async def run(self) -> None:
        """Join the run, and make its rounds until it is over.

        Raises
        ------
        SiteChangedError
            A node was lost or joined.
        AsyncDMTLError
            The connection failed, or the nodes do not fit each other.
        """
        assign = await self._join()
        while True:
            try:
                await self._follow(assign)
                while not self.site.over:
                    self.site.check()
                    await self._round()
                self.site.check()
                done = await self._or_new_plan(self.site.done(self.side))
                self._check_plan()
                await self._up.send(replace(done, plan=self._plan), *self._limit)
                # A worker that comes now lacks the final models, and joins with the relay for them.
                await self.site.send_all(await self.site.unchanged(self._receive(Finish)))
                return
            except NewPlan as replaced:
                assign = replaced.assign
            except SiteChangedError:
                if self._gathering.blind and (names := self.site.misled):
                    raise _misled(names) from None
                raise

    async def _join(self) -> Assign:
        """Declare what the nodes store together, and wait for the first plan."""
        up, options, membership = self._up, self._options, self._gathering.membership
        members = sorted(membership.members.values(), key=lambda member: natural_key(member.name))
        digest, seconds = self._digest, self._limit[0]
        group = SiteGroup(self._gathering.multicast)
        site = Site(membership, members, digest, seconds, group, blind=self._gathering.blind)
        await site.refuse_unserved(self._gathering.strategy, self._gathering.settings.update)
        known = membership.declared()
        declared = [known[name] for name in sorted(known, key=natural_key)]
        *some, last = await asyncio.to_thread(lambda: list(pieces(declared)))
        up.be_patient(patient=True)
        for part in some:
            await up.send(DeclareSome(part), *self._limit)
        machine = await asyncio.to_thread(Machine.here, self._gathering.settings.arithmetic)
        await up.send(
            Declare(last, site.round, site.over, site.state, machine, site.wants, site.workers), *self._limit
        )
        start = options.upward.start_timeout, "--start-timeout"
        prepare = await up.receive((Prepare,), *start)
        up.be_patient(patient=False)
        encoding, surveys = _read(prepare, up.peer, blind=self._gathering.blind)
        if len(prepare.challenges) != len(declared):
            raise RemoteProtocolError(f"{up.peer} sent {len(prepare.challenges)} challenges")
        challenges = dict(zip((part.id for part in declared), prepare.challenges, strict=True))
        answers = await self._gathering.prepared(encoding, challenges, len(members), surveys)
        infos = {info.id: info for member in reversed(members) for info in member.infos}
        await up.send(Ready(tuple(infos[part.id] for part in declared), answers), *self._limit)
        self._site = site
        message: JoinGroup | Assign = await up.receive((JoinGroup, Assign), *start)
        if isinstance(message, JoinGroup):
            self._group = await join_group(up, options.upward, {}, message)
            message = await up.receive((Assign,), *start)
        return message

    async def _follow(self, assign: Assign) -> None:
        """Follow a plan, and give all nodes the state of the training that the parent orders."""
        up, site, self._plan = self._up, self.site, assign.plan
        place = assign.round, assign.over
        name = self._options.upward.name
        trainer = None if self._side is None else self._side.trainer
        side, problem = await asyncio.to_thread(
            _sides, assign, name, self._gathering, site, self._digest, trainer
        )
        self._side, self._problem = side, problem
        await site.refuse_unserved(self._gathering.strategy, problem.update)
        up.session.body_limit = max(side.received_bytes, site.state_bytes(problem))
        if self._group is not None:
            await self._group.follow(assign.plan, side, grouped=assign.grouped)
        first = StateTransfer(assign.first)
        state = await self._or_new_plan(site.assign(side, problem, place, first))
        if first is StateTransfer.TAKE:
            self._check_plan()
            await up.send(AwaitRestore(assign.plan), *self._limit)
            restore = await self._receive(Restore)
            await asyncio.to_thread(_take_over, side, restore, self._digest, up.peer)
            await site.restore(restore, place)
            self._note_progress()
        elif state is not None:
            await self._give(state)

    async def _round(self) -> None:
        """Make one round: updates come up, rows go up, rows come down and are coded anew for the nodes."""
        site, side, problem = self.site, self.side, self._problem
        assert problem is not None
        if self._group is not None:
            self._group.begin(site.round)
        uploads = await self._or_new_plan(site.uploads(side))
        if uploads is None:
            return
        told = await _agreed(site, side, ExactStates(problem, self._digest), uploads)
        rows = await self._put(side, 0, [upload.rows[0] for upload in uploads])
        rest = side.sent_bytes - rows.nbytes
        uplink = Uplink(self._plan, site.round, side.layout.pack(told), rows, rest)
        self._check_plan()
        await self._up.send(uplink, *self._limit)
        arrived = [asyncio.Event() for _ in side.ranges]
        arrived[0].set()
        then = await _together(self._send_up(side, arrived), self._hand_down(side, arrived))
        site.round, site.over = site.round + 1, then is AfterRound.END
        self._note_progress()
        if then is AfterRound.GIVE:
            await self._give(await self._or_new_plan(site.given(site.giver, problem)))

    async def _put(self, side: RelaySide, i: int, rows: list[Bytes]) -> Bytes:
        """Take in range `i` of the nodes' rows; the rows that go up, in one dimension."""
        made = await self._working.do(side.put, i, rows)
        if i + 1 == len(side.ranges):
            try:
                await self._working.do(side.check_own)
            except IntegrityError as error:
                await self.site.refuse(error, error.workers, excluded=False)
        return made.reshape(-1)

    async def _send_up(self, side: RelaySide, arrived: list[asyncio.Event]) -> None:
        """Pass the further ranges of the nodes' rows on, encoded."""
        for i in range(1, len(side.ranges)):
            rows = await self._put(side, i, await self.site.rows(side, i))
            # A parent that waits for no rows may have made the round already, and have a plan for the next
            # one: then this round is finished first.
            if rows.nbytes:
                self._check_plan()
                if self._up.session.plan != self._plan:
                    # The new plan is being read already, and ends this round.
                    return
                await self._up.send(MoreRows(self._plan, self.site.round, (rows,)), *self._limit)
            arrived[i].set()

    async def _hand_down(self, side: RelaySide, arrived: list[asyncio.Event]) -> AfterRound:
        """Decode what comes down, and hand it to the nodes; return the order for after the round."""
        site, downlink = self.site, await self._receive(Downlink)
        then = AfterRound(downlink.then)
        rows = ParentRows(self._up, downlink, side, self._group, self._options.upward.reply_limit)
        usual: AfterRound = AfterRound.GO_ON if then is AfterRound.GIVE else then
        orders = dict.fromkeys(site.members, usual)
        if then is AfterRound.GIVE:
            orders[site.giver] = then
        last = len(side.down_ranges) - 1
        for i in range(len(side.down_ranges)):
            came = await rows.arrived(i)
            # A server that sends results has had all ranges of the nodes' rows.
            if i < len(arrived):
                await arrived[i].wait()
            if not i:
                await self._working.do(side.take, downlink.told)
            await self._working.do(side.receive, i, await rows.decodable(i, came))
            if i == last:
                await self._working.do(side.finish)
            if side.streams:
                await site.send_range(side, i, orders)
        if not side.streams:
            for i in range(len(side.down_ranges)):
                await site.send_range(side, i, orders)
        return then

    def close(self) -> None:
        """Leave the multicast group."""
        if self._group is not None:
            self._group.close()
            self._group = None

    async def _give(self, state: Bytes) -> None:
        """Send the parent the state of the training."""
        self._check_plan()
        await self._up.send(Snapshot(self._plan, self.site.round, self._digest(state), state), *self._limit)

    def _check_plan(self) -> None:
        """Raise NewPlan if a new plan has arrived: nothing may be sent under the old one any more."""
        if (newer := self._up.inbox.take(Assign)) is not None:
            raise NewPlan(newer)

    async def _receive(self, wanted: type[Answer]) -> Answer:
        """The parent's next message of the kind `wanted`; a new plan raises NewPlan instead."""
        message: Answer | Assign = await self._up.receive((wanted, Assign), *self._options.upward.reply_limit)
        if isinstance(message, Assign):
            raise NewPlan(message)
        return message

    async def _or_new_plan(self, work: Coroutine[Any, Any, Result]) -> Result:
        """The result of some work with the nodes, unless the parent sends a new plan meanwhile."""
        # The work has limits of its own.
        newer = asyncio.create_task(self._up.receive((Assign,), math.inf, ""))
        working = asyncio.create_task(work)
        try:
            await asyncio.wait((newer, working), return_when=asyncio.FIRST_COMPLETED)
            if newer.done():
                raise NewPlan(newer.result())
            return await working
        finally:
            await _stop(newer, working)


def _take_over(side: RelaySide, restore: Restore, digest: Digest, parent: str) -> None:
    """Let a side take over the models in a state of the training, if it holds models."""
    if side.trainer is None:
        return
    if digest(restore.body) != restore.digest:
        told = f"the state that {parent} sent was corrupted on its way"
        raise IntegrityError(told, partitions=[], workers=[])
    try:
        side.restore(restore.body)
    except UsageError as error:
        raise RemoteProtocolError(f"{parent} sent a state that breaks a rule: {error}") from error


async def _agreed(site: Site, side: RelaySide, states: ExactStates, uploads: list[Upload]) -> Upload:
    """What the relay tells, if its nodes agree; else those that most others contradict are lost."""
    names = [member.name for member in site.members]
    try:
        compare_states(names, uploads, states, side.below.expected_checks(final=False))
        return side.agree(uploads)
    except DisagreementError as error:
        if error.undecided:
            raise
        await site.refuse(error, error.odd, excluded=True)
    except StateError as error:
        if not error.mendable:
            raise
        await site.refuse(error, error.workers, excluded=False)


def _misled(names: Sequence[str]) -> IntegrityError:
    """The error that these nodes of a blind run decoded wrong vectors, which only workers can find."""
    told = f"{', '.join(names)} decoded other vectors than their holders computed"
    return IntegrityError(told, partitions=[], workers=names)


def _read(prepare: Prepare, parent: str, *, blind: bool) -> tuple[Encoding, Mapping[str, bytes] | None]:
    """The encoding; in a blind run an empty one, and the sealed surveys from which nodes make theirs."""
    if blind:
        surveys = prepare.encoding.get(SEALED)
        if not isinstance(surveys, dict) or not all(isinstance(one, bytes) for one in surveys.values()):
            raise RemoteProtocolError(f"{parent} sent surveys that are not sealed")
        return Encoding.empty(), surveys
    try:
        return Encoding.from_dict(prepare.encoding), None
    except UsageError as error:
        raise RemoteProtocolError(f"{parent} sent an encoding that breaks a rule: {error}") from error


def _sides(
    assign: Assign, name: str, gathering: Gathering, site: Site, digest: Digest, trainer: Trainer | None
) -> tuple[RelaySide, Problem]:
    """The side of the relay `name` under a plan of its parent, and the problem of the run.

    The trainer is that of the side before, if the relay holds models.
    """
    check_recipe(assign, name)
    plan = rebuild(assign.recipe, assign.digest)
    if not isinstance(plan, Plan) or not assign.detailed:
        raise PlanError("a relay cannot follow this plan")
    problem = Problem(gathering.settings, assign.partitions)
    warn_of_doubts(name, site.stored, plan.placement.as_dict()[name])
    grouped = assign.grouped or (gathering.multicast is not None and groupable(plan, problem))
    facts = plan, name, site.stored, problem, digest, site.helpers
    if gathering.blind:
        origin = assign.origin or root_of(assign.plan, assign.digest)
        return make_blind_side(*facts, origin=origin, grouped=grouped), problem
    return make_relay_side(*facts, grouped=grouped, trainer=trainer), problem


async def _together(first: Coroutine[Any, Any, Any], second: Coroutine[Any, Any, Result]) -> Result:
    """Do both at the same time; if one fails, the other is stopped. Returns the result of the second."""
    tasks = asyncio.create_task(first), asyncio.create_task(second)
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
        return tasks[1].result()
    finally:
        await _stop(*tasks)


async def _stop(*tasks: asyncio.Task[Any]) -> None:
    """Stop tasks whose results and errors nobody needs."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()
