"""Inputs for `fuzz_protocol`: the messages of honest peers, which `fuzz_mutations` changes.

An input is a byte string, so that it can be kept, shown in hex and run again. The first byte is the letter of
its target; then follow

::

    s  session   role (0 worker, 1 server), delivery, number of moves, moves, stream
    h  head      a head of a frame
    v  values    number of the reader, and one msgpack value
    d  group     number of a worker, and the datagrams that it hears: a msgpack list
    a  answers   what workers say of a broadcast, as a msgpack list: [] for the next range,
                 [number of the worker, range, lacks, seen]
    b  bomb      how many times in a list, and a piece of msgpack that is repeated as often as a head has room

A stream has the bytes that the peer sends: frames, perhaps damaged. After each message, this end may make
moves of its own: a byte 0 waits, a byte `i` sends the `i`-th message that its state allows.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, lru_cache
from typing import Any

import msgpack
import numpy as np

from asyncdmtl.blinding.agreement import Offer
from asyncdmtl.blinding.group_key import NAME_BYTES
from asyncdmtl.data.pooling import pool
from asyncdmtl.data.raw_partition import RawPartition
from asyncdmtl.data.surveys import Survey
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import PartitionInfo
from asyncdmtl.multicast.datagrams import KEY_BYTES, Layout, Stream
from asyncdmtl.multicast.receiving import DatagramCounts, Reassembly
from asyncdmtl.multicast.sending import Broadcast, DatagramBlock
from asyncdmtl.plan.codes.repair import Solver
from asyncdmtl.plan.linear.planning import make_linear_plan
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.planner import make_plan
from asyncdmtl.plan.serialization import recipe_and_digest
from asyncdmtl.protocol.messages import registry
from asyncdmtl.protocol.messages.joining import PROOF_BYTES, PROOF_NONCE_BYTES
from asyncdmtl.protocol.messages.peers import PEER_KEY_BYTES
from asyncdmtl.protocol.messages.registry import (
    VERSION,
    AskRows,
    Assign,
    AwaitRestore,
    Challenge,
    Declare,
    DeclareSome,
    Done,
    Downlink,
    Failure,
    Fallback,
    Finish,
    GiveRows,
    GroupKeys,
    Heartbeat,
    Hello,
    JobCall,
    JobEnded,
    JoinedGroup,
    JoinGroup,
    KeyOrder,
    KeyRequest,
    KeysGiven,
    Listen,
    Listens,
    LossQuery,
    LossReport,
    Message,
    MoreRows,
    PeerReport,
    Prepare,
    Proof,
    Ready,
    RenewedKeys,
    Restore,
    RowsLacking,
    Snapshot,
    Standby,
    StreamEnd,
    Submit,
    Uplink,
    Welcome,
)
from asyncdmtl.protocol.messages.streams import Then
from asyncdmtl.protocol.state_table import STATELESS_KINDS, TRANSITIONS, State

READERS = ("settings", "survey", "encoding", "plan")
PARTS = 6
WIDE = 100_000


def site(n: int) -> RawPartition:
    """A partition of a file, with a column of each kind."""
    columns = {"age": [30.0 + n, math.nan, 52.0], "city": ["Ur", None, "Uruk"], "old": [True, False, True]}
    return RawPartition(f"p{n}", f"t{n // 2}", {k: np.array(v) for k, v in columns.items()}, np.arange(3.0))


SETTINGS = Settings(loss="squared", coupling="nuclear", strength=0.1, rounds=3)
PLACEMENT = Placement.cyclic(4, PARTS, 2)
DECLARATIONS = tuple(site(n).declaration() for n in range(PARTS))
ENCODING = pool({d.id: Survey.from_dict(d.survey) for d in DECLARATIONS}, "squared", standardise=True)
INFOS = tuple(PartitionInfo(d.id, d.task, d.digest, 3, 3.0, 4, 0.5) for d in DECLARATIONS)
RELAYED = make_plan(PLACEMENT, "relay", tasks=[n // 2 for n in range(PARTS)], units="updates")
PLAN, DIGEST = recipe_and_digest(RELAYED)
LINEAR, _ = recipe_and_digest(make_linear_plan(PLACEMENT, np.ones((1, PARTS))))
OFFER = Offer("w1", bytes(32), bytes(32))
ROWS = np.arange(300, dtype=np.uint16).astype(np.uint8)


class Air:
    """A round of the plan `RELAYED` that is sent to a group, with both of its ends."""

    def __init__(self) -> None:
        plan, stored = RELAYED, PLACEMENT.stored
        updates = np.random.default_rng(0).integers(0, 256, (PARTS, 300), dtype=np.uint8)
        self._known = [plan.vector_format(300, np.uint8).pack(updates[list(own)]) for own in stored]
        down = plan.recombine([plan.encode(k, updates[list(own)]) for k, own in enumerate(stored)])
        self.layout = Layout(down.shape[1], 48, 20)
        spans = map(self.layout.span, range(self.layout.ranges))
        self._rows = [np.ascontiguousarray(down[:, start:stop]) for start, stop in spans]
        self.solvers = [Solver.of(plan, k) for k in range(len(stored))]

    def broadcast(self) -> Broadcast:
        """The server's end."""
        own = {f"w{k}": solver.own for k, solver in enumerate(self.solvers)}
        return Broadcast(self._stream(), self.layout, self._rows, RELAYED.seed, own)

    def reassembly(self, worker: int) -> Reassembly:
        """A worker's end."""
        return Reassembly(self._stream(), self.layout, self.solvers[worker], DatagramCounts())

    def right(self, worker: int, index: int, end: Reassembly) -> bool:
        """Whether a complete range equals the one that was sent."""
        known = self._known[worker][:, slice(*self.layout.span(index))]
        return np.array_equal(end.hand_out(index, known), self._rows[index][list(self.solvers[worker].own)])

    @staticmethod
    def _stream() -> Stream:
        return Stream.of_round(bytes(KEY_BYTES), 0, DIGEST, 0)


AIR = Air()

# A message for every event of the state table, as an honest peer would send it.
EXAMPLES: dict[str, Message] = {
    message.event: message
    for message in (
        Hello(VERSION, "w0"),
        Challenge("run", bytes(PROOF_NONCE_BYTES)),
        Proof(bytes(PROOF_NONCE_BYTES), bytes(PROOF_BYTES)),
        Welcome("run", SETTINGS.as_dict(), 10.0, bytes(PROOF_BYTES)),
        DeclareSome(DECLARATIONS[2:]),
        Declare(DECLARATIONS[:2], 2, False, bytes(16)),
        Prepare(ENCODING.as_dict(), (bytes(32), bytes(16))),
        Ready(INFOS[:2], (bytes(range(32)), bytes(16))),
        *(Assign(0, 0, False, first, PLAN, DIGEST, INFOS[:2]) for first in ("keep", "give", "take")),
        Snapshot(0, 0, bytes(16), ROWS),
        AwaitRestore(0),
        Restore(bytes(16), ROWS),
        Uplink(0, 0, bytes(96), ROWS),
        MoreRows(0, 0, (ROWS[200:],)),
        *(Downlink(0, 0, then, bytes(16), (ROWS[:200], ROWS[200:])) for then in ("go on", "give", "end")),
        Done(0, bytes(16)),
        Finish(),
        Heartbeat(),
        Failure(3, "why", True),
        JoinGroup("239.1.2.3", 7701, bytes(KEY_BYTES), bytes(16), 1444),
        JoinedGroup(),
        LossQuery(0, 0, 1, 2),
        LossReport(0, 0, 1, b"\0\2", 40),
        Fallback(0, 0, 1, (ROWS[:200], ROWS[200:])),
        Listen(bytes(PEER_KEY_BYTES)),
        Listens("10.0.0.2", 7702, b"certificate"),
        PeerReport(0, 0, ((1, 8, 40),)),
        RowsLacking(0, 0, "why"),
        AskRows(0, 0, 1, 0, ROWS.nbytes),
        GiveRows(0, 0, 1, 0, ROWS.nbytes, (ROWS,)),
        Standby("run", 10.0, bytes(PROOF_BYTES)),
        JobCall("run", "job", "dose"),
        StreamEnd(),
        KeyRequest(OFFER, bytes(NAME_BYTES)),
        GroupKeys(OFFER, bytes(48)),
        RenewedKeys(OFFER, bytes(80)),
        KeyOrder(0, 1, (OFFER,)),
        KeysGiven(0, (bytes(80),)),
        Standby("run", 10.0, bytes(PROOF_BYTES), submits=True),
        Submit('{"name": "job"}', Then.WAIT),
        JobEnded("job", "why", 3, b"{}"),
    )
}
if missing := {event for _, event in TRANSITIONS} - set(EXAMPLES):
    raise SystemExit(f"fuzz_inputs.EXAMPLES needs a message for each of {missing}")

# The messages by which a run goes on from each state, and the state after each.
MOVES: dict[State, list[tuple[str, State]]] = {
    state: [
        (event, after)
        for (before, event), after in TRANSITIONS.items()
        if before is state and event != "failure" and event not in STATELESS_KINDS
    ]
    for state in State
}
VALUES: list[tuple[str, Any]] = [
    ("settings", SETTINGS.as_dict()),
    ("survey", DECLARATIONS[0].survey),
    ("encoding", ENCODING.as_dict()),
    ("plan", PLAN),
    ("plan", LINEAR),
]


@cache
def moves_of(role: str, state: State) -> list[str]:
    """The events by which this role may go on from a state."""
    return [event for event, _ in MOVES[state] if EXAMPLES[event].sender == role]


@lru_cache
def numbered(event: str, plan: int, round_: int) -> tuple[Message, int, int]:
    """An honest message for an event in a round under a plan, and the numbers of plan and round after it."""
    message = EXAMPLES[event]
    plan += isinstance(message, Assign)
    # Between two workers, rows come before there is a plan.
    numbers = {"plan": max(plan, 0), "round": round_}
    own = {name: number for name, number in numbers.items() if getattr(message, name, None) is not None}
    return replace(message, **own), plan, round_ + isinstance(message, Downlink)


def honest(rng: random.Random, role: str) -> bytes:
    """A session input that breaks no rule: a random path through the state table."""
    state, plan, round_, stream, moves, welcomed = State.OPENED, -1, 0, b"", b"", False
    for _ in range(rng.randint(6, 24)):
        if not MOVES[state]:
            break
        event, after = rng.choice(MOVES[state])
        message, plan, round_ = numbered(event, plan, round_)
        own = moves_of(role, state)
        if message.sender == role:
            moves += bytes([1 + own.index(event)])
        else:
            moves += b"\0" if own else b""
            if message.has_body and rng.random() < 0.01:
                body = {"parts": (np.zeros(WIDE, np.uint8),)}
                message = replace(
                    message, **(body if isinstance(message, Downlink) else {"body": body["parts"][0]})
                )
            if isinstance(message, Uplink | Downlink) and rng.random() < 0.3:
                stream += in_two(message, rng)
                moves += b"\0" if moves_of(role, after) else b""
            else:
                stream += wire(message)
            if welcomed and after is not State.FINISHED and rng.random() < 0.1:
                stream += wire(Heartbeat())
                moves += b"\0" if moves_of(role, after) else b""
            if plan >= 0 and round_ and after is not State.FINISHED and rng.random() < 0.1:
                aside = rng.choice(("loss-query", "fallback") if role == "worker" else ("loss-report",))
                stream += wire(numbered(aside, plan, round_ - 1)[0])
                moves += b"\0" if moves_of(role, after) else b""
        state, welcomed = after, welcomed or after is State.WELCOMED
    return b"s" + bytes([role == "server", 1, len(moves)]) + moves + stream


def wire(message: Message) -> bytes:
    """The frame of a message."""
    return b"".join(map(bytes, registry.frame_message(message)[0]))


def in_two(message: Uplink | Downlink, rng: random.Random) -> bytes:
    """The frames of a message whose rows come in two ranges."""
    up = isinstance(message, Uplink)
    rows = np.concatenate(message.rows())
    at = rng.randrange(len(rows))
    first = replace(message, rest=len(rows) - at, **({"body": rows[:at]} if up else {"parts": (rows[:at],)}))
    return wire(first) + wire(MoreRows(message.plan, message.round, (rows[at:],)))


def heard(rng: random.Random) -> Iterator[bytes]:
    """Inputs of honest datagrams of a round, of which some are lost."""
    broadcast, loss = AIR.broadcast(), rng.choice((0.0, 0.1, 0.5))
    ends = [AIR.reassembly(k) for k in range(len(AIR.solvers))]
    told: list[list[bytes]] = [[] for _ in ends]
    answers: list[list[Any]] = []

    def say(blocks: Iterator[DatagramBlock]) -> None:
        for block in blocks:
            content = bytes(block.datagrams)
            for at in range(0, len(content), block.size):
                for k, end in enumerate(ends):
                    if rng.random() >= loss:
                        told[k].append(content[at : at + block.size])
                        end.take(memoryview(told[k][-1]))

    def answer(index: int) -> None:
        for name in broadcast.waiting(index):
            k = int(name[1:])
            answers.append([k, index, ends[k].lacks(index), ends[k].seen(index)])
            broadcast.take_report(name, *answers[-1][1:])

    for index in range(AIR.layout.ranges):
        answers.append([])
        say(broadcast.next_range())
        answer(index)
        while (due := broadcast.range_to_repair()) is not None:
            broadcast.take_unrepairable(due)
            if broadcast.lacking(due):
                say(broadcast.repair(due))
                answer(due)
    yield b"a" + msgpack.packb(answers)
    for k, datagrams in enumerate(told):
        yield b"d" + msgpack.packb([k, *datagrams])


def corpus(rng: random.Random, sessions: int = 400) -> list[bytes]:
    """Inputs that break no rule, for every target."""
    inputs = [honest(rng, role) for role in ("server", "worker") for _ in range(sessions // 2)]
    inputs += [data for _ in range(1 + sessions // 20) for data in heard(rng)]
    inputs += [b"h" + registry.pack(message) for message in EXAMPLES.values()]
    inputs += [b"v" + bytes([READERS.index(name)]) + msgpack.packb(value) for name, value in VALUES]
    return inputs
