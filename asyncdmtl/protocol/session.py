"""The protocol of one end of a connection, without sockets: bytes become messages, and messages bytes.

::

    session = Session("worker", ledger)
    buffers = session.send(Hello(VERSION, "w0"))       # write these to the peer
    messages = session.receive(data)                   # pass received bytes on

The order of messages follows the tables in `state_table`; sizes are checked against limits, and fields by the
messages. Every byte is counted in the ledger. Misuse by this end raises LocalProtocolError. An error of the
peer raises RemoteProtocolError, and the session has then failed for good: only one more message may be sent,
a `failure`, which tells the peer the reason.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

from asyncdmtl.errors import CorruptionError, LocalProtocolError, RemoteProtocolError
from asyncdmtl.protocol.frame_reader import Frame, FrameReader
from asyncdmtl.protocol.framing import Buffer
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.protocol.messages import registry
from asyncdmtl.protocol.messages.base import Message, Role
from asyncdmtl.protocol.messages.registry import (
    Assign,
    Downlink,
    Fallback,
    Hello,
    LossReport,
    MoreRows,
    MulticastControl,
    PeerReport,
    PeerRows,
    RowsLacking,
    Uplink,
    Welcome,
)
from asyncdmtl.protocol.plan_state import PlanReply, PlanState
from asyncdmtl.protocol.round_totals import Direction
from asyncdmtl.protocol.state_table import TRANSITIONS, State

# The most bytes of a head from a worker that the server has not welcomed: a greeting has a few hundred.
GREETING_HEAD_LIMIT = 1 << 12

# The most bytes of a head from a welcomed worker: room for surveys of 200,000 columns in one declaration.
WORKER_HEAD_LIMIT = 1 << 23

# The most bytes of a head from a server: room for the encoding of as many columns, and for plans of many
# workers.
SERVER_HEAD_LIMIT = 1 << 26

# The bytes of a head from which on it is large: reading it takes some milliseconds for every 100 KB, in which
# an event loop would do nothing else.
LARGE_HEAD_BYTES = 1 << 16

# The messages that may be on their way when the server sends a new plan.
_LATE_REPORTS = LossReport | PeerReport | RowsLacking
_MAY_BE_LATE = PlanReply | MoreRows | _LATE_REPORTS

# The messages whose bytes belong to a round.
_OF_ROUND = Uplink | Downlink | MoreRows | MulticastControl | PeerReport | PeerRows


class Session:
    """The protocol of one connection.

    Most of its attributes are read-only properties, which only messages change.

    Parameters
    ----------
    role : "server" or "worker"
        The role of this end.
    ledger : Ledger
        The ledger that counts all bytes, under the worker's name.
    worker : str, optional
        The worker's name, if it is known; a server learns it from the greeting.

    Attributes
    ----------
    peer : "server" or "worker"
        The role of the other end.
    """

    def __init__(self, role: Role, ledger: Ledger, worker: str = "?") -> None:
        self.role: Role = role
        self.peer: Role = "worker" if role == "server" else "server"
        self.worker = worker
        self.ledger = ledger
        self._current = PlanState()
        # Plans that a server has replaced, by number. The worker's messages for them may still arrive.
        self._replaced: dict[int, PlanState] = {}
        self._encryption: dict[Direction, int] = {"up": 0, "down": 0}
        self._reader = FrameReader(GREETING_HEAD_LIMIT, 0)
        # Received frames behind one with a large head, which is the first.
        self._frames: deque[Frame] = deque()

    @property
    def state(self) -> State:
        """The state of the connection."""
        return self._current.state

    @property
    def plan(self) -> int:
        """The number of the plan in force; -1 before the first plan."""
        return self._current.plan

    @property
    def round(self) -> int:
        """The current round under the plan."""
        return self._current.round

    @property
    def body_limit(self) -> int:
        """The largest body, in bytes, that the peer may send; 0 until this end sets it."""
        return self._reader.body_limit

    @body_limit.setter
    def body_limit(self, limit: int) -> None:
        self._reader.body_limit = limit

    @property
    def idle(self) -> bool:
        """True while no frame has begun to arrive, or waits to be read."""
        return self._reader.idle and not self._frames

    @property
    def large(self) -> Frame | None:
        """The next frame, if its head is large; all behind it waits until `accept_large` is called."""
        return self._frames[0] if self._frames else None

    @property
    def progress(self) -> int:
        """A counter that grows with each message of the peer, and with each valid piece of a long one."""
        return self._reader.progress

    @property
    def heartbeats_due(self) -> bool:
        """True while heartbeats may be sent: from the welcome to the end."""
        return (self.state, "heartbeat") in TRANSITIONS

    @property
    def failure_due(self) -> bool:
        """True while the peer may still be told of a failure."""
        return self.state not in (State.FINISHED, State.CLOSED)

    def watch_heads(self, announced: Callable[[int], None] | None) -> None:
        """From now on, call a function with the length of each large head when it begins to arrive."""
        self._reader.on_large_head = announced

    def send(self, message: Message) -> list[Buffer]:
        """The buffers that carry a message, to be written in their order; rows are not copied.

        Raises
        ------
        LocalProtocolError
            This end may not send the message now.
        """
        if message.sender not in (self.role, "either"):
            raise LocalProtocolError(f"a {self.role} does not send {message.kind}")
        size = sum(row.nbytes for row in message.rows())
        if (complaint := self._current.complaint(self.role, message, size)) is not None:
            raise LocalProtocolError(f"{self.role} may not send {message.kind} {complaint}")
        buffers, wire_size = registry.frame_message(message)
        self._count(self.role, message, _round_of(message), size, wire_size)
        self._advance(self.role, message, size)
        return buffers

    def get_buffer(self) -> memoryview:
        """The buffer for the next received bytes."""
        return self._reader.get_buffer()

    def buffer_updated(self, count: int) -> list[Message]:
        """Process `count` bytes in the buffer from `get_buffer`; return the messages that they complete.

        A message whose head is large is not among them, and none behind it: see `large`.

        Raises
        ------
        RemoteProtocolError
            The peer broke a rule; the session has failed.
        """
        return self._received(lambda: self._reader.buffer_updated(count))

    def accept_large(self, read: Callable[[], Message]) -> list[Message]:
        """The message of the `large` frame, and those behind it.

        Parameters
        ----------
        read : callable
            Returns the frame's message, as `registry.unpack` does, or raises its RemoteProtocolError. It may
            have been read in another thread.

        Raises as `buffer_updated`.
        """
        return self._received(lambda: [], read)

    def receive(self, data: Buffer) -> list[Message]:
        """Process received bytes of any length; return all messages that they complete, large ones, too.

        Raises as `buffer_updated`.
        """
        messages = self._received(lambda: self._reader.feed(data))
        while (frame := self.large) is not None:
            messages += self.accept_large(partial(registry.unpack, frame.head, frame.body))
        return messages

    def receive_eof(self) -> None:
        """Note that the peer has closed its side; CorruptionError if a frame is incomplete."""
        if self.state is not State.FAILED and not self.idle:
            self._current.state = State.FAILED
            raise CorruptionError("the connection ended within a frame")

    def count_encryption(self, *, received: int, sent: int) -> None:
        """Count the bytes that encryption has added so far, in both directions."""
        up, down = (received, sent) if self.role == "server" else (sent, received)
        totals: dict[Direction, int] = {"up": up, "down": down}
        for direction, total in totals.items():
            if added := total - self._encryption[direction]:
                self.ledger.add(self.worker, direction, "tls", added)
                self._encryption[direction] = total

    def _received(
        self, read: Callable[[], list[Frame]], large: Callable[[], Message] | None = None
    ) -> list[Message]:
        """The messages of waiting frames up to the next large one, of which `large` reads the first."""
        accepted: list[Message | None] = []
        try:
            self._frames += read()
            while self._frames and (large is not None or len(self._frames[0].head) <= LARGE_HEAD_BYTES):
                frame = self._frames.popleft()
                message = registry.unpack(frame.head, frame.body) if large is None else large()
                accepted.append(self._accept(message, frame))
                large = None
        except RemoteProtocolError:
            self._current.state = State.FAILED
            self._frames.clear()
            raise
        return [message for message in accepted if message is not None]

    def _accept(self, message: Message, frame: Frame) -> Message | None:
        """The message of a frame, checked and counted; None if it is for a plan that was replaced."""
        size = len(frame.body)
        if message.sender not in (self.peer, "either"):
            raise RemoteProtocolError(f"a {self.peer} does not send {message.kind}")
        if isinstance(message, Hello) and self.state is State.OPENED:
            self.worker = message.name
        late = isinstance(message, _MAY_BE_LATE) and message.plan < self.plan
        complaint = self._late_complaint(message, size) if late else self._complaint(message, size)
        # The fields of a refused message are not trusted, so that its bytes belong to no round.
        self._count(self.peer, message, None if complaint else _round_of(message), size, frame.size)
        if complaint is not None:
            raise RemoteProtocolError(f"{self.peer} sent {message.kind} {complaint}")
        if late:
            self._advance_late(message, size)
            return None
        self._advance(self.peer, message, size)
        return message

    def _complaint(self, message: Message, size: int) -> str | None:
        """The reason why the peer may not send this message now; None if it may."""
        return self._current.complaint(self.peer, message, size) or self._excess(message)

    def _late_complaint(self, message: Message, size: int) -> str | None:
        """The reason why a message for an earlier plan cannot have been on its way; None if it can."""
        if isinstance(message, _LATE_REPORTS):
            return None if (self.state, message.event) in TRANSITIONS else self._current.where
        if isinstance(message, PlanReply | MoreRows) and (replaced := self._replaced.get(message.plan)):
            return replaced.complaint(self.peer, message, size) or self._excess(message)
        return self._current.where

    def _excess(self, message: Message) -> str | None:
        """The excess of announced rows over the limit, in words; None if there is none."""
        if isinstance(message, Uplink | Downlink) and message.rest > self.body_limit:
            return f"with {message.rest} more bytes of rows, permitted are at most {self.body_limit}"
        return None

    def _advance(self, sender: Role, message: Message, size: int) -> None:
        """Update the state by an allowed message, sent or received."""
        before, self._current = self._current, self._current.advance(sender, message, size)
        if isinstance(message, Assign) and self.role == "server":
            self._replaced[before.plan] = before
        elif isinstance(message, PlanReply):
            # Messages arrive in the order in which they were sent, so that none for an earlier plan follows.
            self._replaced.clear()
        # Before the welcome, a server accepts only short heads.
        if isinstance(message, Welcome if self.role == "server" else Hello):
            self._reader.head_limit = WORKER_HEAD_LIMIT if self.role == "server" else SERVER_HEAD_LIMIT

    def _advance_late(self, message: Message, size: int) -> None:
        """Update the state of a replaced plan by a late message; plans before that one are forgotten."""
        if isinstance(message, PlanReply | MoreRows):
            self._replaced[message.plan].advance(self.peer, message, size)
            self._replaced = {n: state for n, state in self._replaced.items() if n >= message.plan}

    def _count(self, sender: Role, message: Message, round_: int | None, payload: int, size: int) -> None:
        direction: Direction = "up" if sender == "worker" else "down"
        kind = f"{direction}link" if isinstance(message, MoreRows | Fallback) else message.kind
        self.ledger.count(self.worker, direction, kind, round_, payload=payload, size=size)


def _round_of(message: Message) -> int | None:
    """The round to which the bytes of a message belong; None if they belong to no round."""
    if isinstance(message, _OF_ROUND):
        return message.round
    return None
