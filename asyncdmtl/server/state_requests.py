"""Requests for the state of the training, which rounds do not wait for.

A checkpoint, and a late worker that lacks rounds, need the state of the training. The server asks workers for
it, which send it after a round. Any of them may fall silent at that moment, so that rounds go on meanwhile
under a plan that tolerates silent workers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from asyncdmtl.arrays import Bytes
from asyncdmtl.errors import RemoteProtocolError
from asyncdmtl.protocol.messages.registry import Message, Restore, Snapshot
from asyncdmtl.server.believed_states import BelievedStates
from asyncdmtl.server.checkpoint import Checkpoint
from asyncdmtl.server.checkpointing import CheckpointWriter
from asyncdmtl.server.lateness import Lateness, is_far
from asyncdmtl.server.member import Member
from asyncdmtl.server.peers import Peers, ReplanError
from asyncdmtl.server.state_handover import checked_state
from asyncdmtl.server.training_progress import TrainingProgress

log = logging.getLogger(__name__)


@dataclass
class _Request:
    """A request for the state at the beginning of a round.

    Attributes
    ----------
    round : int
    givers : tuple of Member
        The members that were asked. The first state that comes is taken.
    held : dict of Member to list of Message
        The late members that are to have the state, with the rows of the rounds since, which are sent after
        the state.
    checkpoint : Checkpoint or None
        The checkpoint that is to have the state.
    given : tuple of Member and uint8 array, or None
        The state, with the member that gave it.
    """

    round: int
    givers: tuple[Member, ...]
    held: dict[Member, list[Message]]
    checkpoint: Checkpoint | None
    given: tuple[Member, Bytes] | None = None

    @property
    def answerable(self) -> bool:
        """Whether a state may still come."""
        return self.given is None and any(not giver.gone for giver in self.givers)


class StateRequests:
    """Asks members for the state of the training, and hands it on when it comes. One request is open at most.

    Parameters
    ----------
    progress : TrainingProgress
    peers : Peers
    states : BelievedStates
    lateness : Lateness
        The members that are late, under plans that tolerate silent workers.
    """

    def __init__(
        self, progress: TrainingProgress, peers: Peers, states: BelievedStates, lateness: Lateness
    ) -> None:
        self._progress = progress
        self._peers = peers
        self._states = states
        self.lateness = lateness
        self._request: _Request | None = None

    def forget(self) -> None:
        """Forget the request unless it is answered: a new plan begins, under which no state comes."""
        if self._request is not None and self._request.given is None:
            self._request = None

    def is_open(self, number: int) -> bool:
        """Whether a request is open in a round, so that no other one is made.

        A request is given up if no state can come any more, or if it is so late that the rows since would
        be too many: then others are asked.
        """
        request = self._request
        if request is None:
            return False
        late = is_far(request.round - 1, number)
        if request.given is None and (late or not request.answerable):
            self._request = None
        return self._request is not None

    def ask(self, givers: Sequence[Member], takers: Iterable[Member], checkpoint: Checkpoint | None) -> None:
        """Note that members were asked for the state of the current round."""
        held: dict[Member, list[Message]] = {taker: [] for taker in takers}
        self._request = _Request(self._progress.round, tuple(givers), held, checkpoint)

    def serves(self, member: Member) -> bool:
        """Whether a member waits for the state of the request, and may still get it."""
        return self._request is not None and self._request.answerable and member in self._request.held

    def hold(self, member: Member, message: Message) -> None:
        """Keep a message with rows of a member that is served, until it has the state before them."""
        assert self._request is not None
        self._request.held[member].append(message)

    async def answered(self, giver: Member) -> None:
        """Wait for the state of a member that was asked; raises as `take`, and if it does not come."""
        self.take(giver, await self._peers.receive(giver, Snapshot))

    def take(self, giver: Member, snapshot: Snapshot) -> None:
        """Take the state that a member gave, and hand it to those that wait for it.

        States that come too late, or after that of another member, are dropped.

        Raises
        ------
        IntegrityError
            The state was corrupted on the way.
        RemoteProtocolError
            It is of another round or size, or not the state that most members held.
        """
        request = self._request
        if request is None or request.given is not None or giver not in request.givers:
            return
        state = checked_state(self._progress, giver, snapshot, request.round)
        self._compare(request.round, giver, state)
        request.given = giver, state
        for taker, rows in request.held.items():
            self.catch_up(taker, state, request.round, rows)
        if request.checkpoint is None:
            self._request = None

    def catch_up(self, member: Member, state: Bytes, number: int, rows: Sequence[Message] = ()) -> None:
        """Send a late member that made all rounds it was sent the state of a round, and the rows since."""
        if member.gone:
            return
        progress = self._progress
        self._peers.write(member, Restore(progress.digest(state), state, number))
        for message in rows:
            self._peers.write(member, message)
        self.lateness.hand_over(member, number, asyncio.get_running_loop().time())
        self._states.unconfirmed.add(member.name)
        log.info(
            "run %s round %d: worker %s was late, and has the state of another worker now",
            progress.run, number, member.name,
            extra={"run": progress.run, "round": number, "worker": member.name},
        )  # fmt: skip

    async def save(self, writer: CheckpointWriter) -> None:
        """Write the checkpoint of the request, if its state is there, and most members have told its check.

        Raises
        ------
        ReplanError
            The state is not the one that most members held; its giver is lost.
        """
        request = self._request
        if request is None or request.given is None or request.checkpoint is None:
            return
        if not self._known(request.round):
            return
        self._request = None
        giver, state = request.given
        try:
            self._compare(request.round, giver, state)
        except RemoteProtocolError as error:
            await self._peers.lose(giver, error)
            raise ReplanError from error
        await writer.save(state, request.checkpoint)

    def _known(self, number: int) -> bool:
        """Whether the check of the state that most members held in a round is known."""
        return self._states.check(number) is not None

    def _compare(self, number: int, giver: Member, state: Bytes) -> None:
        """Raise RemoteProtocolError if a state is known not to be the one that most members held."""
        states, believed = self._progress.states, self._states.check(number)
        if believed is not None and not states.same(states.check(state), believed):
            complaint = f"{giver.connection.peer} gave another state of the training than most workers hold"
            raise RemoteProtocolError(complaint)
