"""The transfer of the state of the training from a worker to the server and to workers that lack it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence

from asyncdmtl.arrays import Bytes
from asyncdmtl.blinding.sealed import SEALED_STATE_BYTES
from asyncdmtl.errors import AsyncDMTLError, IntegrityError, RemoteProtocolError
from asyncdmtl.plan.round_time import sends_ahead
from asyncdmtl.plan.serialization import recipe_and_digest
from asyncdmtl.protocol.messages.registry import (
    Assign,
    AwaitRestore,
    Message,
    Restore,
    Snapshot,
    StateTransfer,
)
from asyncdmtl.protocol.state_table import State
from asyncdmtl.server.assignment import Assignment
from asyncdmtl.server.believed_states import BelievedStates
from asyncdmtl.server.group_keys import no_member
from asyncdmtl.server.member import Member, without_digests
from asyncdmtl.server.peers import OPTION, Peers, ReplanError
from asyncdmtl.server.training_progress import TrainingProgress
from asyncdmtl.server.training_state import TrainingState

# Seconds that a server that is being stopped waits for a worker's last state of the training.
LAST_STATE_SECONDS = 2.0


class StateHandover:
    """Sends plans to members, and the state of the training to the members that lack it.

    Parameters
    ----------
    peers : Peers
    progress : TrainingProgress
    believed : BelievedStates
    """

    def __init__(self, peers: Peers, progress: TrainingProgress, believed: BelievedStates) -> None:
        self._peers = peers
        self._progress = progress
        self._believed = believed

    async def hand_out(self, assignment: Assignment, origin: TrainingState) -> None:
        """Send all members the plan, and the state to those that lack it.

        Parameters
        ----------
        assignment : Assignment
        origin : TrainingState
            The state from which the assignment continues.

        Raises
        ------
        ReplanError
            A member is lost.
        """
        await self._renew_keys(assignment)
        keep, take = StateTransfer.KEEP, StateTransfer.TAKE
        # A worker that wants no models goes on without those of a training that is over.
        served = {m for m in assignment.members if m.helps and m.current and origin.over}
        first = {m: keep if m in origin.keepers or m in served else take for m in assignment.members}
        takers = [member for member, what in first.items() if what is take]
        # Any of those may be silent that the plan tolerates; the first state that comes is taken.
        givers = origin.keepers[: 1 + assignment.plan.silent] if takers and origin.state is None else ()
        first |= dict.fromkeys(givers, StateTransfer.GIVE)
        await self._assign(assignment, first)
        state = origin.state
        if givers:
            state = await self._first_given(givers, origin)
            if not origin.check:
                self._believed.unconfirmed.update(taker.name for taker in takers)
        if takers:
            assert state is not None
            restore = Restore(self._progress.digest(state), state)
            await self._peers.ask_all({taker: self._restore(taker, restore) for taker in takers})
        for member in assignment.members:
            member.current = True
        self._progress.electorate = tuple(m.name for m in assignment.members if not m.helps)
        self._progress.resumed = False

    async def _renew_keys(self, assignment: Assignment) -> None:
        """Let a worker of a blind run seal a new key for others, if one that has the present is excluded."""
        membership, members = self._peers.membership, {member.name: member for member in assignment.members}
        keys, names = membership.keys, list(members)
        order, giver = keys.due(names, membership.excluded), keys.giver(names)
        if order is None or giver is None:
            return
        limit = self._peers.seconds, OPTION
        (gifts,) = await self._peers.ask_all({members[giver]: keys.given(giver, order, limit)})
        messages = keys.renewed(giver, order, gifts)
        await self._peers.send_all({members[name]: message for name, message in messages.items()})
        if strangers := [taker.name for taker in order.takers if taker.name not in messages]:
            for name in strangers:
                await self._peers.lose(members[name], no_member(name, giver))
            raise ReplanError

    async def snapshot(self, giver: Member) -> Bytes:
        """The state of the training, from a member that was told to send it.

        Raises
        ------
        IntegrityError
            The state was corrupted on the way.
        RemoteProtocolError
            The state is of another round or size.
        WaitError, LinkError, PeerError
            The state did not arrive.
        """
        snapshot = await self._peers.receive_past_rows(giver, Snapshot)
        return checked_state(self._progress, giver, snapshot, self._progress.round)

    async def last_state(self, assignment: Assignment) -> Bytes | None:
        """The state of the training, if members send it soon. The current round is given up.

        If the server has not compared the states of this round yet, it asks members until more than half of
        them have sent the same.
        """
        progress, states, told = self._progress, self._progress.states, {}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_STATE_SECONDS):
                for member in assignment.members:
                    computing = member.connection.session.state in (State.COMPUTING, State.UPLINK_SENT)
                    if not computing or not member.current or member.gone:
                        continue
                    progress.plans += 1
                    with contextlib.suppress(AsyncDMTLError):
                        await self._assign(assignment, {member: StateTransfer.GIVE})
                        state = await self.snapshot(member)
                        told[member.name] = check = states.check(state)
                        believed = self._believed.check(progress.round)
                        if believed is None:
                            majority = states.majority(told, len(assignment.members))
                            believed = None if majority is None else majority.check
                        if believed is not None and states.same(check, believed):
                            return state
        return None

    async def _assign(self, assignment: Assignment, first: Mapping[Member, StateTransfer]) -> None:
        """Send members the plan, under the number of the last plan, with the order for their states."""
        progress = self._progress
        recipe, plan_digest = recipe_and_digest(assignment.plan)
        timed = progress.links.learned or bool(progress.links.speeds)
        infos = progress.problem.infos
        untold = without_digests(infos)
        messages: dict[Member, Message] = {}
        for member, what in first.items():
            session, position = member.connection.session, assignment.position(member)
            # Longer messages for the plan before may still be on their way.
            needed = max(assignment.side.uplink_bytes(position), _state_bytes(self._progress))
            session.body_limit = max(session.body_limit, needed)
            messages[member] = Assign(
                progress.plans - 1,
                progress.round,
                progress.over,
                what,
                recipe,
                plan_digest,
                member.told_infos(infos, untold),
                grouped=bool(assignment.listeners),
                detailed=assignment.detailed,
                peers=assignment.peers_of(member),
                shared=bool(assignment.exchanging),
                carried=assignment.carried,
                measured=timed,
                paced=not sends_ahead(assignment.plan, progress.links),
                key=assignment.keys.get(position, b""),
            )
        await self._peers.send_all(messages)

    async def _first_given(self, givers: Sequence[Member], origin: TrainingState) -> Bytes:
        """The first state that one of these members sends; ReplanError if one fails before.

        What others send later is read with the rows of rounds, and dropped.
        """
        asked = {asyncio.create_task(self._given(giver, origin)): giver for giver in givers}
        try:
            done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        found = await self._peers.ask_all({asked[task]: task for task in asked if task in done})
        return found[0]

    async def _given(self, giver: Member, origin: TrainingState) -> Bytes:
        """The state that a member sends, which must be the one that is believed, if one is."""
        state = await self.snapshot(giver)
        states = self._progress.states
        if origin.check and not states.same(states.check(state), origin.check):
            raise RemoteProtocolError(f"{giver.connection.peer} gave another state than it said it has")
        return state

    async def _restore(self, taker: Member, restore: Restore) -> None:
        """Send a member the state, once it has allocated memory for it."""
        await self._peers.receive_past_rows(taker, AwaitRestore)
        await self._peers.send(taker, restore)


def checked_state(progress: TrainingProgress, giver: Member, snapshot: Snapshot, number: int) -> Bytes:
    """The state of the training at the beginning of a round, which a member gave.

    Raises
    ------
    IntegrityError
        The state was corrupted on the way.
    RemoteProtocolError
        The state is of another round or size.
    """
    peer, size = giver.connection.peer, snapshot.body.nbytes
    if (snapshot.round, size) != (number, _state_bytes(progress)):
        raise RemoteProtocolError(f"{peer} gave a state of {size} bytes of round {snapshot.round}")
    if progress.digest(snapshot.body) != snapshot.digest:
        reason = f"the state that {peer} gave was corrupted on its way"
        raise IntegrityError(reason, partitions=[], workers=[giver.name])
    return snapshot.body


def _state_bytes(progress: TrainingProgress) -> int:
    """Bytes of a state as it travels."""
    return progress.problem.state_bytes + (SEALED_STATE_BYTES if progress.blind else 0)
