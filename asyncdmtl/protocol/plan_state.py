"""The progress of one plan on a connection: its state, its round, and the coded rows still to come."""

from __future__ import annotations

from dataclasses import dataclass, field

from asyncdmtl.protocol.messages.base import Message, Role
from asyncdmtl.protocol.messages.registry import (
    Assign,
    AwaitRestore,
    Done,
    Downlink,
    Failure,
    Heartbeat,
    KeyControl,
    MoreRows,
    MulticastControl,
    PeerReport,
    Restore,
    RowsLacking,
    Snapshot,
    Uplink,
)
from asyncdmtl.protocol.state_table import (
    ROW_TRANSITIONS,
    TOLERANT_TRANSITIONS,
    TRANSITIONS,
    RowEvent,
    RowState,
    State,
)

# The messages that a worker sends under a plan, besides further rows.
PlanReply = Uplink | Snapshot | AwaitRestore | Done

# The messages that belong to one plan.
_OF_PLAN = PlanReply | Downlink | MoreRows | MulticastControl | PeerReport | RowsLacking

# The messages that may come between the ranges of a sender's rows.
_BESIDE = Heartbeat | Failure | Assign | MulticastControl | PeerReport | RowsLacking | KeyControl


@dataclass
class RowStream:
    """The coded rows of one sender in one round, which may come in several messages.

    Attributes
    ----------
    state : RowState
    round : int
        The round of the last rows.
    missing : int
        Bytes that were announced and have not been sent yet.
    """

    state: RowState = RowState.COMPLETE
    round: int = 0
    missing: int = 0

    def event(self, message: Message, size: int) -> RowEvent:
        """The event that a message with `size` bytes of rows is for this stream."""
        if isinstance(message, Uplink | Downlink):
            return RowEvent.FIRST if message.rest else RowEvent.ALL
        if isinstance(message, MoreRows):
            return RowEvent.LAST if size == self.missing else RowEvent.MORE
        return RowEvent.BESIDE if isinstance(message, _BESIDE) else RowEvent.OTHER

    def complaint(self, message: Message, size: int) -> str | None:
        """The reason why a message with `size` bytes of rows is not allowed now; None if it is allowed."""
        follows = (self.state, self.event(message, size)) in ROW_TRANSITIONS
        if isinstance(message, MoreRows):
            if follows and 0 < size <= self.missing and message.round == self.round:
                return None
            return (
                f"of {size} bytes of round {message.round} "
                f"where {self.missing} of round {self.round} are to come"
            )
        return None if follows else f"where {self.missing} bytes of rows are to come"

    def advance(self, message: Message, size: int) -> None:
        """Update the state by an allowed message."""
        self.state = ROW_TRANSITIONS[self.state, self.event(message, size)]
        if isinstance(message, Uplink | Downlink):
            self.round, self.missing = message.round, message.rest
        elif isinstance(message, MoreRows):
            self.missing -= size


@dataclass
class PlanState:
    """The progress of both ends under one plan.

    Attributes
    ----------
    plan : int
        The plan's number; -1 before the first plan.
    round : int
        The current round.
    state : State
    tolerant : bool
        Whether the server may go on without late workers.
    heard : int
        The round of the worker's last uplink; -1 before the first one.
    lacking : bool
        Whether the worker has reported that it lacks rows, after which a new plan follows.
    rows : dict of Role to RowStream
        The coded rows of each end.
    """

    plan: int = -1
    round: int = 0
    state: State = State.OPENED
    tolerant: bool = False
    heard: int = -1
    lacking: bool = False
    rows: dict[Role, RowStream] = field(
        default_factory=lambda: {"server": RowStream(), "worker": RowStream()}
    )

    @property
    def where(self) -> str:
        """The state in words, for errors."""
        return f"when {self.state.name.lower().replace('_', ' ')}"

    def complaint(self, sender: Role, message: Message, size: int) -> str | None:
        """The reason why `sender` may not send this message with `size` bytes of rows; None if it may."""
        if self._following(message) is None:
            return self.where
        if (other := self._other_place(message)) is not None:
            return other
        return None if self._gives_up(sender, message) else self.rows[sender].complaint(message, size)

    def advance(self, sender: Role, message: Message, size: int) -> PlanState:
        """Update the state by an allowed message; return the state of the plan that is then in force."""
        following = self._following(message)
        assert following is not None
        if isinstance(message, Assign):
            return PlanState(message.plan, message.round, following, message.tolerant)
        if self._gives_up(sender, message):
            self.rows[sender] = RowStream()
        self.rows[sender].advance(message, size)
        self.state = following
        if isinstance(message, Uplink):
            self.heard = message.round
        elif isinstance(message, RowsLacking):
            self.lacking = True
        elif isinstance(message, Downlink):
            self.round += 1
        elif isinstance(message, Restore) and message.round is not None:
            self.round = message.round
        return self

    def _following(self, message: Message) -> State | None:
        """The state after a message; None if it may not come in this state."""
        late = isinstance(message, Uplink) and message.round < self.round
        pair = self.state, "uplink, late" if late and self.tolerant else message.event
        return TRANSITIONS.get(pair) or (TOLERANT_TRANSITIONS.get(pair) if self.tolerant else None)

    def _gives_up(self, sender: Role, message: Message) -> bool:
        """Whether a message gives up the rest of a worker's rows of a round that went on without them."""
        rows = self.rows[sender]
        late = self.tolerant and sender == "worker" and rows.round < self.round
        follows = isinstance(message, PlanReply)
        return late and follows and rows.state is RowState.PARTIAL

    def _other_place(self, message: Message) -> str | None:
        """How a message's plan or round differs from this plan's, in words; None if they are equal."""
        if isinstance(message, _OF_PLAN) and message.plan != self.plan:
            return f"of plan {message.plan} under plan {self.plan}"
        about_rows = MulticastControl | PeerReport | RowsLacking
        if isinstance(message, about_rows) and message.round >= self.round:
            return f"of round {message.round}, of which no rows are on their way"
        if isinstance(message, RowsLacking) and self.lacking:
            return "a second time under one plan"
        if isinstance(message, Restore):
            waits = self.state is State.AWAITING_STATE
            if waits != (message.round is None) or (message.round or self.round) < self.round:
                return f"of round {message.round} in round {self.round}"
        late = self.tolerant and isinstance(message, Uplink) and self.heard < message.round < self.round
        if isinstance(message, Uplink | Downlink) and message.round != self.round and not late:
            return f"of round {message.round} in round {self.round}"
        return None
