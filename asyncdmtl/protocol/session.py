"""One end of a connection, without the connection: bytes in, messages out, and the other way round.

::

    session = Session("worker", ledger)
    buffers = session.send(Hello(VERSION, "w0"))       # write these to the peer
    messages = session.receive(data)                   # hand on what was received

Order is checked by the table in `states`, sizes by limits, fields by `messages`, and every byte is
counted. Misuse by this side raises LocalProtocolError; by the peer RemoteProtocolError, and the session is
failed for good: all that may still be sent is one `failure` that tells the peer why.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from asyncdmtl.errors import CorruptionError, LocalProtocolError, RemoteProtocolError
from asyncdmtl.protocol import framing
from asyncdmtl.protocol.framing import Buffer, Frame, FrameReader
from asyncdmtl.protocol.ledger import Direction, Ledger
from asyncdmtl.protocol.messages import registry
from asyncdmtl.protocol.messages.registry import (
    Assign,
    AwaitRestore,
    Done,
    Downlink,
    Failure,
    Fallback,
    Heartbeat,
    Hello,
    LossReport,
    Message,
    MoreRows,
    MulticastControl,
    Snapshot,
    Uplink,
    Welcome,
)
from asyncdmtl.protocol.state_table import TRANSITIONS, State

Role = Literal["server", "worker"]

# What a worker sends under a plan.
Answer = Uplink | Snapshot | AwaitRestore | Done

# Bytes of a head: before a greeting; of what a worker declares, which is room for surveys of 200,000 columns
# in all; and of what a server sends (the encoding, the plan).
GREETING_HEAD_LIMIT = 1 << 12
WORKER_HEAD_LIMIT = 1 << 23
SERVER_HEAD_LIMIT = 1 << 26


# States in which no heartbeat is due: nobody is waited for yet, or any more.
_SILENT = (
    *(State.OPENED, State.GREETED, State.CHALLENGED, State.PROVEN),
    *(State.FINISHED, State.FAILED),
)


class Session:
    """The state of one connection.

    Parameters
    ----------
    role : "server" or "worker"
        Which end this is.
    ledger : Ledger
        Where bytes are counted, under the worker's name.
    worker : str, optional
        The worker's name, if known; the server learns it from the greeting.

    Attributes
    ----------
    state : State
    worker : str
    plan, round : int
        Number of the plan in force, and the round that is made under it. What a worker had sent for an
        earlier plan before it knew of this one is counted and dropped.
    body_limit : int
        The largest body, in bytes, that the peer may send; 0 until this side sets it.
    """

    def __init__(self, role: Role, ledger: Ledger, worker: str = "?") -> None:
        self.role = role
        self.peer: Role = "worker" if role == "server" else "server"
        self.state = State.OPENED
        self.worker = worker
        self.plan = -1
        self.round = 0
        # Where earlier plans stood, and in which round, when the next one was handed out.
        self._overtaken: dict[int, tuple[State, int]] = {}
        self._told = False
        # Bytes of rows that each end has announced and not sent yet, and of which round; late ones apart.
        self._rest: dict[Role, int] = {"server": 0, "worker": 0}
        self._rest_of: dict[Role, int] = {"server": 0, "worker": 0}
        self._late_rest = 0
        self._overhead: dict[Direction, int] = {"up": 0, "down": 0}
        self.ledger = ledger
        self._reader = FrameReader(GREETING_HEAD_LIMIT, 0)

    @property
    def body_limit(self) -> int:
        """The largest body, in bytes, that the peer may send."""
        return self._reader.body_limit

    @body_limit.setter
    def body_limit(self, limit: int) -> None:
        self._reader.body_limit = limit

    @property
    def idle(self) -> bool:
        """True while no frame has begun to come."""
        return self._reader.idle

    @property
    def progress(self) -> int:
        """Grows with what the peer sends, if that leads anywhere."""
        return self._reader.progress

    @property
    def heartbeats_due(self) -> bool:
        """True while heartbeats may be sent: from the welcome to the end."""
        return self.state not in _SILENT

    @property
    def failure_due(self) -> bool:
        """True while the peer may still be told of a failure."""
        return not self._told and self.state is not State.FINISHED

    def send(self, message: Message) -> list[Buffer]:
        """The buffers that carry `message`, to be written in order; bodies are not copied."""
        if message.sender not in (self.role, "either"):
            raise LocalProtocolError(f"a {self.role} does not send {message.kind}")
        following = self._following(message)
        if following is None:
            raise LocalProtocolError(f"{self.role} may not send {message.kind} when {self._where()}")
        if (place := self._other_place(message) or self._out_of_turn(self.role, message)) is not None:
            raise LocalProtocolError(f"{self.role} may not send {message.kind} {place}")
        buffers, size = framing.encode(registry.pack(message), message.rows())
        payload = sum(row.nbytes for row in message.rows())
        self._count(self.role, message, _counted(message), payload, size)
        self._advance(self.role, message, following, payload)
        return buffers

    def get_buffer(self) -> memoryview:
        """Where the next received bytes belong."""
        return self._reader.get_buffer()

    def buffer_updated(self, count: int) -> list[Message]:
        """Take note of `count` received bytes; return the messages that they complete."""
        return self._received(lambda: self._reader.buffer_updated(count))

    def receive(self, data: Buffer) -> list[Message]:
        """Take in received bytes of any length; return the messages that they complete."""
        return self._received(lambda: self._reader.feed(data))

    def count_overhead(self, *, received: int, sent: int) -> None:
        """Count bytes that encryption has added so far to all that was received and sent."""
        up, down = (received, sent) if self.role == "server" else (sent, received)
        totals: dict[Direction, int] = {"up": up, "down": down}
        for direction, total in totals.items():
            if more := total - self._overhead[direction]:
                self.ledger.add(self.worker, direction, "tls", more)
                self._overhead[direction] = total

    def receive_eof(self) -> None:
        """The peer closed its side; CorruptionError if the rest of a frame is missing."""
        if self.state is not State.FAILED and not self._reader.idle:
            self.state = State.FAILED
            raise CorruptionError("the connection ended within a frame")

    def _received(self, read: Callable[[], list[Frame]]) -> list[Message]:
        try:
            accepted = [self._accept(frame) for frame in read()]
        except RemoteProtocolError:
            self.state = State.FAILED
            raise
        return [message for message in accepted if message is not None]

    def _accept(self, frame: Frame) -> Message | None:
        message = registry.unpack(frame.head, frame.body)
        if message.sender not in (self.peer, "either"):
            raise RemoteProtocolError(f"a {self.peer} does not send {message.kind}")
        if isinstance(message, Hello) and self.state is State.OPENED:
            self.worker = message.name
        late = False
        complaint: str | None
        if isinstance(message, Answer | MoreRows | LossReport) and message.plan < self.plan:
            late, following, complaint = True, self._overtaken_by(message), None
        else:
            following = self._following(message)
            complaint = self._other_place(message) or self._out_of_turn(self.peer, message)
        if following is None:
            complaint = f"when {self._where()}"
        # Of a message that is refused, no field is believed.
        round_ = _counted(message) if complaint is None else None
        self._count(self.peer, message, round_, len(frame.body), frame.size)
        if following is None or complaint is not None:
            raise RemoteProtocolError(f"{self.peer} sent {message.kind} {complaint}")
        if late:
            return None
        self._advance(self.peer, message, following, len(frame.body))
        return message

    def _overtaken_by(self, message: Answer | MoreRows | LossReport) -> State | None:
        """Where a message for an earlier plan leads, if it was on its way when the next was handed out."""
        if isinstance(message, LossReport):
            return self.state if self.state not in _SILENT else None
        if isinstance(message, MoreRows):
            self._late_rest -= len(message.body)
            return None if self._late_rest < 0 else self.state
        state, round_ = self._overtaken.get(message.plan, (State.FAILED, 0))
        following = TRANSITIONS.get((state, message.event))
        if following is None or (isinstance(message, Uplink) and message.round != round_):
            return None
        self._overtaken = {plan: where for plan, where in self._overtaken.items() if plan > message.plan}
        self._overtaken[message.plan] = following, round_
        if isinstance(message, Uplink):
            self._late_rest += min(message.rest, self.body_limit)
        return following

    def _out_of_turn(self, sender: Role, message: Message) -> str | None:
        """Why this may not come now, if rows that `sender` announced and has not sent yet forbid it."""
        rest = self._rest[sender]
        if isinstance(message, MoreRows):
            size = sum(row.nbytes for row in message.rows()) or len(message.body)
            of = self._rest_of[sender]
            fits = 0 < size <= rest and message.round == of
            return (
                None
                if fits
                else f"of {size} bytes of round {message.round} where {rest} of round {of} are to come"
            )
        if rest and not isinstance(message, Heartbeat | Failure | Assign | MulticastControl):
            return f"where {rest} bytes of rows are to come"
        limit = self.body_limit
        if sender is self.peer and isinstance(message, Uplink | Downlink) and message.rest > limit:
            return f"with {message.rest} more bytes of rows, permitted are at most {limit}"
        return None

    def _other_place(self, message: Message) -> str | None:
        """How plan or round of a message differ from those in force, if they do."""
        if isinstance(message, Answer | Downlink | MoreRows | MulticastControl) and message.plan != self.plan:
            return f"of plan {message.plan} under plan {self.plan}"
        if isinstance(message, MulticastControl) and message.round >= self.round:
            return f"of round {message.round}, of which no rows are on their way"
        begun = isinstance(message, MoreRows)
        if not begun and (told := _round(message)) not in (None, self.round):
            return f"of round {told} in round {self.round}"
        return None

    def _following(self, message: Message) -> State | None:
        if isinstance(message, Failure):
            return None if self._told else State.FAILED
        if isinstance(message, Heartbeat):
            return self.state if self.heartbeats_due else None
        if isinstance(message, MoreRows | MulticastControl):
            return self.state if self.state not in _SILENT else None
        return TRANSITIONS.get((self.state, message.event))

    def _advance(self, sender: Role, message: Message, following: State, payload: int) -> None:
        if isinstance(message, Assign):
            if self.role == "server":
                self._overtaken[self.plan] = self.state, self.round
                self._late_rest += self._rest["worker"]
            self._rest = {"server": 0, "worker": 0}
        elif isinstance(message, Uplink | Downlink):
            self._rest[sender], self._rest_of[sender] = message.rest, message.round
        elif isinstance(message, MoreRows):
            self._rest[sender] -= payload
        self.state = following
        if isinstance(message, Failure):
            self._told = True
        # A server lets nobody send more than a greeting before it has welcomed him.
        if isinstance(message, Welcome if self.role == "server" else Hello):
            self._reader.head_limit = WORKER_HEAD_LIMIT if self.role == "server" else SERVER_HEAD_LIMIT
        if isinstance(message, Assign):
            self.plan, self.round = message.plan, message.round
        elif isinstance(message, Downlink):
            self.round += 1
        if isinstance(message, Answer):
            self._overtaken.clear()

    def _count(self, sender: Role, message: Message, round_: int | None, payload: int, size: int) -> None:
        direction: Direction = "up" if sender == "worker" else "down"
        kind = f"{direction}link" if isinstance(message, MoreRows | Fallback) else message.kind
        self.ledger.count(self.worker, direction, kind, round_, payload=payload, size=size)

    def _where(self) -> str:
        return self.state.name.lower().replace("_", " ")


def _counted(message: Message) -> int | None:
    """The round to which the bytes of a message belong."""
    return message.round if isinstance(message, MulticastControl) else _round(message)


def _round(message: Message) -> int | None:
    """The round whose coded rows these are."""
    return message.round if isinstance(message, Uplink | Downlink | MoreRows) else None
