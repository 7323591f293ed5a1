"""Inputs for `fuzz_protocol`: the messages of honest peers, and mutations of them.

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
from collections.abc import Callable, Iterator
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
from asyncdmtl.protocol import framing
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
LONGEST = 250_000

Node = tuple[Any, Any]


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


def bomb(rng: random.Random) -> bytes:
    """A large head that repeats one small value, in lists of any length."""
    pieces = (
        *(msgpack.packb(value) for value in ODD if len(msgpack.packb(value)) < 20),
        *(b"\x81\xa1a\x90", b"\x92\xa2ab\x80", b"\xdd\x00\x03\x00\x00", rng.randbytes(rng.randrange(1, 12))),
    )
    piece: bytes = rng.choice(pieces)
    return b"b" + rng.choice((0, 1, 2, 15, 1000, 100_000, 199_999)).to_bytes(4, "big") + piece


def exploded(bomb: bytes, size: int) -> bytes:
    """The head of `size` bytes to which a small input expands."""
    times, piece = int.from_bytes(bomb[:4], "big") % (1 << 20), bomb[4:] or b"\xc0"
    if times:
        piece = b"\xdd" + times.to_bytes(4, "big") + piece * times
    count = max(1, (size - 6) // len(piece))
    return b"\x92\x03\xdd" + count.to_bytes(4, "big") + piece * count


def frames(stream: bytes) -> Iterator[bytes]:
    """Cut a stream into frames, by the lengths that they announce."""
    while stream:
        size = frame_size(stream) or len(stream)
        yield stream[:size]
        stream = stream[size:]


def frame_size(stream: bytes) -> int | None:
    """Bytes of the first frame of a stream, or None if they are not all there."""
    prefix = _prefix(stream)
    if prefix is None or sum(prefix) > len(stream):
        return None
    _, body, _ = prefix
    size = sum(prefix)
    size += sum(len(framing.bin_header(length)) for length in framing.chunk_lengths(body))
    return size if size <= len(stream) else None


def _parts(frame: bytes) -> tuple[bytes, int, bytes] | None:
    """Head, announced length of the body, and the bytes after the head; None if the head is not complete."""
    prefix = _prefix(frame)
    if prefix is None:
        return None
    length, body, start = prefix
    end = start + length
    if length <= framing.CHECK_BYTES or end > len(frame):
        return None
    return frame[start : end - framing.CHECK_BYTES], body, frame[end:]


def _prefix(data: bytes) -> tuple[int, int, int] | None:
    """The lengths of head and body that bytes begin with, and the bytes of the prefix, if it is one."""
    try:
        return framing.unpack_prefix(data)
    except framing.NoPrefixError:
        return None


class Mutator:
    """Mutates inputs; every choice comes from `rng`."""

    def __init__(self, rng: random.Random, seeds: list[bytes]) -> None:
        self._rng = rng
        self._strange = [
            *(frame for seed in seeds if seed[:1] == b"s" for frame in frames(seed[4 + seed[3] :])),
        ][:500]
        self._on_bytes: list[Callable[[bytes], bytes]] = [self._flip, self._cut, self._insert, self._repeat]
        self._on_frames: list[Callable[[list[bytes], int], list[bytes]]] = [
            *[self._bend_frame] * 6, self._lie, self._drop, self._double, self._swap, self._splice,
            self._break_frame,
        ]  # fmt: skip

    def __call__(self, data: bytes) -> bytes:
        """`data` with one to four changes."""
        for _ in range(self._rng.choice((1, 1, 1, 2, 3, 4))):
            data = self._once(data)[:LONGEST]
        return data

    def damaged(self, frame: bytes, how: str) -> bytes:
        """A frame with one change: "bend", "lie", "double" or "splice"."""
        damage = {"bend": self._bend_frame, "lie": self._lie, "double": self._double, "splice": self._splice}
        return b"".join(damage[how]([frame], 0))

    def _once(self, data: bytes) -> bytes:
        rng = self._rng
        if data[:1] == b"s" and len(data) > 4:
            start = 4 + data[3]
            header, stream = data[:start], data[start:]
            if rng.random() < 0.1:
                return b"s" + self._other_end(header) + stream
            cut = list(frames(stream))
            if not cut:
                return header + rng.choice(self._strange)
            return header + b"".join(rng.choice(self._on_frames)(cut, rng.randrange(len(cut))))
        start = 2 if data[:1] == b"v" else 1
        if rng.random() < 0.8:
            return data[:start] + self._bend(data[start:])
        return data[:start] + rng.choice(self._on_bytes)(data[start:])

    def _other_end(self, header: bytes) -> bytes:
        """Change the role, the delivery, or a move of this end."""
        changed = bytearray(header[1:])
        place = self._rng.randrange(len(changed) - 1)
        place += place >= 2  # the number of moves stays what it is
        changed[place] = self._rng.choice((0, 1, 2, 3, self._rng.randrange(256)))
        return bytes(changed)

    def _flip(self, data: bytes) -> bytes:
        changed = bytearray(data or b"\0")
        for _ in range(self._rng.choice((1, 1, 2, 8))):
            changed[self._rng.randrange(len(changed))] ^= 1 << self._rng.randrange(8)
        return bytes(changed)

    def _cut(self, data: bytes) -> bytes:
        start, end = sorted(self._rng.randrange(len(data) + 1) for _ in range(2))
        return data[:start] if self._rng.random() < 0.5 else data[:start] + data[end:]

    def _insert(self, data: bytes) -> bytes:
        place = self._rng.randrange(len(data) + 1)
        return data[:place] + self._rng.randbytes(self._rng.choice((1, 2, 9, 300))) + data[place:]

    def _repeat(self, data: bytes) -> bytes:
        start = self._rng.randrange(len(data) + 1)
        return data + data[start : start + 200]

    def _bend_frame(self, cut: list[bytes], i: int) -> list[bytes]:
        """A frame whose head is wrong, but whose lengths and check are right."""
        parts = _parts(cut[i])
        if parts is None:
            return self._break_frame(cut, i)
        head, body, rest = parts
        bent = self._bend(head) if self._rng.random() < 0.8 else self._rng.choice(self._on_bytes)(head)
        cut[i] = framing.frame_start(bent, body) + rest
        return cut

    def _break_frame(self, cut: list[bytes], i: int) -> list[bytes]:
        cut[i] = self._rng.choice(self._on_bytes)(cut[i])
        return cut

    def _lie(self, cut: list[bytes], i: int) -> list[bytes]:
        """Change lengths, so that they do not fit the bytes that follow."""
        parts = _parts(cut[i])
        if parts is None:
            return cut
        head, body, rest = parts
        if self._rng.random() < 0.5:
            lie = self._rng.choice((0, body + 1, body - 1, 1 << self._rng.randrange(64), -1))
            cut[i] = framing.frame_start(head, lie % (1 << 64)) + rest
        else:
            length = len(head) + self._rng.choice((-1, 0, 1, 1 << self._rng.randrange(32), -len(head)))
            start = len(framing.pack_prefix(len(head) + framing.CHECK_BYTES, body))
            cut[i] = framing.pack_prefix(length % (1 << 32), body) + cut[i][start:]
        return cut

    def _drop(self, cut: list[bytes], i: int) -> list[bytes]:
        return cut[:i] + cut[i + 1 :]

    def _double(self, cut: list[bytes], i: int) -> list[bytes]:
        return cut[:i] + cut[i : i + 1] * self._rng.choice((1, 1, 20)) + cut[i:]

    def _swap(self, cut: list[bytes], i: int) -> list[bytes]:
        j = self._rng.randrange(len(cut))
        cut[i], cut[j] = cut[j], cut[i]
        return cut

    def _splice(self, cut: list[bytes], i: int) -> list[bytes]:
        """Insert a frame of another session, perhaps of the other role."""
        return [*cut[:i], self._rng.choice(self._strange), *cut[i + self._rng.randrange(2) :]]

    def _bend(self, packed: bytes) -> bytes:
        """A msgpack value with one change."""
        try:
            root = [msgpack.unpackb(packed, strict_map_key=False)]
            nodes = list(_nodes(root))
            container, key = self._rng.choice(nodes)
            container[key] = self._other(container[key])
            bent: bytes = msgpack.packb(root[0])
            return bent
        except (ValueError, TypeError, OverflowError, msgpack.UnpackException):
            return self._flip(packed)

    def _other(self, value: Any) -> Any:
        """A replacement for `value`, often similar to it."""
        rng = self._rng
        if rng.random() < 0.4:
            return rng.choice(ODD)
        if isinstance(value, bool | None):
            return rng.choice((None, True, False, 0, 1))
        if isinstance(value, int):
            return rng.choice((value + 1, value - 1, -value, 2 * value, 1 << rng.randrange(64), float(value)))
        if isinstance(value, float):
            return rng.choice((-value, value * 1e300, int(value) if math.isfinite(value) else 0, math.nan))
        if isinstance(value, str | bytes):
            return rng.choice((value[:-1], value[1:], 2 * value, _grown(value, 200)))
        if isinstance(value, list):
            again = value[: rng.randrange(len(value) + 1)]
            return rng.choice(
                (again, value + again, _grown(value, 50), value[::-1], [value], dict(enumerate(value)))
            )
        if isinstance(value, dict):
            some = dict(rng.sample(list(value.items()), rng.randrange(len(value) + 1)))
            return rng.choice((some, value | {"more": 1}, list(value.values()), value | {1: 2}))
        return rng.choice(ODD)


def _nodes(root: list[Any], most: int = 3000) -> Iterator[Node]:
    """All places in a value, as container and key, the outer ones first."""
    queue: list[Any] = [root]
    for container in queue:
        pairs = container.items() if isinstance(container, dict) else enumerate(container)
        for key, value in list(pairs)[:most]:
            yield container, key
            if isinstance(value, list | dict) and len(queue) < most:
                queue.append(value)


def _grown(value: Any, times: int) -> Any:
    """Repeat text, bytes or a list, but not so often that the fuzzer itself runs out of memory."""
    return value * min(times, max(1, LONGEST // (1 + len(msgpack.packb(value)))))


def _nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**32 - 1, 2**53, 2**53 + 1, 2**63, 2**64 - 1, -(2**63)),
    *(0.0, -0.0, 0.5, -1.0, math.nan, math.inf, -math.inf, 5e-324, 1.7e308, 1e19),
    *("", "w0", "p0", "t0", 201 * "x", "\x1b]0;x", "\N{RIGHT-TO-LEFT OVERRIDE}"),
    *("1/0", "1e999999999", 5000 * "9"),
    *(b"", bytes(7), bytes(16), bytes(16), bytes(4096), b"\xff\xfe"),
    *([], [[]], [0] * 1000, [["p0"] * 7], _nested(60), {}, {"": {}}, {"a": 1}, {b"k": 0}, {"values": []}),
    *(msgpack.ExtType(5, b"x"), msgpack.ExtType(127, bytes(300)), msgpack.Timestamp(2**33, 999_999_999)),
)  # fmt: skip
