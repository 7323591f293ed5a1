"""Frozen results that are the same on every machine: bytes on the wire, plans, and codes of fixed bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from asyncdmtl.blinding.agreement import Offer
from asyncdmtl.learning.tasks import Declaration, PartitionInfo
from asyncdmtl.multicast.datagrams import Layout, Stream
from asyncdmtl.multicast.sending import Broadcast, DatagramBlock
from asyncdmtl.plan.codes.repair import Solver
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.plan import Plan
from asyncdmtl.plan.planner import make_plan
from asyncdmtl.plan.serialization import recipe_and_digest
from asyncdmtl.protocol.messages.registry import (
    KINDS,
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
    frame_message,
)
from asyncdmtl.protocol.messages.streams import Then

Frozen = dict[str, Any]

PLACEMENTS = {
    "cyclic": Placement.cyclic(6, 6, 3),
    "uneven": Placement(
        {
            "w0": ["p0", "p1", "p2", "p3", "p4", "p5", "p6"],
            "w1": ["p0", "p1", "p7"],
            "w2": ["p2", "p3", "p7", "p8"],
            "w3": ["p4", "p5", "p6", "p8", "p9"],
            "w4": ["p9", "p10", "p11"],
            "w5": [],
        },
        [f"p{n}" for n in range(12)],
    ),
}


def sha(*chunks: Any) -> str:
    """SHA-256 of the concatenation of some buffers, in hexadecimal."""
    found = hashlib.sha256()
    for chunk in chunks:
        found.update(np.ascontiguousarray(chunk).tobytes() if isinstance(chunk, np.ndarray) else chunk)
    return found.hexdigest()


def fixed_bytes(label: str, *shape: int) -> NDArray[np.uint8]:
    """Bytes that follow from `label` alone, and are the same on every machine."""
    count = int(np.prod(shape))
    content = hashlib.shake_128(label.encode()).digest(count)
    return np.frombuffer(content, np.uint8).reshape(shape).copy()


def tasks_of(placement: Placement) -> list[int]:
    """The task of each partition, with two partitions for each task."""
    return [n // 2 for n in range(len(placement.partitions))]


def frozen_wire() -> Frozen:
    """The frame of every message with fixed contents: its length and SHA-256."""
    frames = {}
    for name, message in _messages().items():
        buffers, size = frame_message(message)
        frames[name] = {"number": message.number, "bytes": size, "sha256": sha(*buffers)}
    assert {content["number"] for content in frames.values()} == set(KINDS)
    return frames


def frozen_datagrams() -> Frozen:
    """Multicast datagrams of a fixed key, plan and round, with plain and fresh rows; and a probe."""
    key, frozen = bytes(fixed_bytes("key", 32)), {}
    for name, placement in PLACEMENTS.items():
        plan = make_plan(placement, "relay")
        down = _downlink(plan, 100)
        layout = Layout(down.shape[1], 64, 24)
        rows = [np.ascontiguousarray(down[:, slice(*layout.span(i))]) for i in range(layout.ranges)]
        solvers = [Solver.of(plan, k) for k in range(len(plan.deliveries))]
        own = {w: s.own for w, s in zip(placement.workers, solvers, strict=True) if s.own}
        cast = Broadcast(Stream.of_round(key, 3, plan.digest, 7), layout, rows, plan.seed, own)
        first = _datagrams(cast.next_range(spare=1))
        pieces = layout.pieces_of(0)[1]
        for worker in own:
            cast.take_report(worker, 0, b"\1" * pieces, 0)
        repair = _datagrams(cast.repair(0))
        frozen[name] = {
            "datagrams": {"count": len(first), "bytes": sum(map(len, first)), "sha256": sha(*first)},
            "repair": {"count": len(repair), "bytes": sum(map(len, repair)), "sha256": sha(*repair)},
        }
    probe = bytearray(28 + 40)
    stream = Stream.of_probe(key, bytes(16))
    stream.seal(0, 0, memoryview(bytes(40)), memoryview(probe))
    return {**frozen, "probe": {"bytes": len(probe), "sha256": sha(probe)}}


def frozen_plans() -> Frozen:
    """Recipes, digests and loads of plans, and their coding of fixed bytes."""
    frozen = {}
    for name, placement in PLACEMENTS.items():
        for strategy in ("relay", "central", "personal", "uncoded"):
            plan = make_plan(placement, strategy, tasks=tasks_of(placement))
            frozen[f"{name}, {strategy}"] = _frozen_plan(plan)
    cyclic = PLACEMENTS["cyclic"]
    others = {
        "cyclic, central, one silent": make_plan(cyclic, "central", silent=1),
        "cyclic, relay, seed 5": make_plan(cyclic, "relay", seed=5),
        "cyclic, relay, speeds": make_plan(cyclic, "relay", speeds=[1, 2, 3, 4, 5, 6]),
        "cyclic, relay, prices": make_plan(cyclic, "relay", prices=[6, 5, 4, 3, 2, 1]),
        "two, relay": make_plan(Placement({"a": ["p", "q"], "b": ["q", "r"]}), "relay"),
        "forty, relay": make_plan(Placement.cyclic(10, 40, 4), "relay"),
    }
    return frozen | {name: _frozen_plan(plan) for name, plan in others.items()}


def _frozen_plan(plan: Plan) -> Frozen:
    recipe, digest = recipe_and_digest(plan)
    frozen: Frozen = {
        "digest": digest.hex(),
        "recipe": sha(msgpack.packb(recipe)),
        "uplink_load": str(plan.uplink_load),
        "downlink_load": str(plan.downlink_load),
        "wire_downlink_load": str(plan.wire_downlink_load),
        "uplink_bound": str(plan.uplink_bound),
        "downlink_bound": str(plan.downlink_bound),
    }
    units = fixed_bytes("updates", len(plan.units.holders), 100)
    up = [plan.encode(k, units[list(held)]) for k, held in enumerate(plan.units.held)]
    frozen["uplink"] = sha(*up)
    if plan.broadcasts == "updates":
        down = plan.recombine(up)
        frozen["downlink"] = sha(down)
        for k, delivery in enumerate(plan.deliveries):
            decoded = plan.decode(k, down[list(delivery.rows)], units[list(delivery.known)])
            assert np.array_equal(decoded, units[list(delivery.wanted)])
    else:
        collected = plan.collect(dict(enumerate(up)), 100, np.uint8)
        assert np.array_equal(collected, units)
    return frozen


def _downlink(plan: Plan, length: int) -> NDArray[np.uint8]:
    updates = fixed_bytes("updates", len(plan.placement.partitions), length)
    return plan.recombine([plan.encode(k, updates[list(s)]) for k, s in enumerate(plan.placement.stored)])


def _datagrams(blocks: Iterator[DatagramBlock]) -> list[bytes]:
    found = []
    for block in blocks:
        content = bytes(block.datagrams)
        found += [content[at : at + block.size] for at in range(0, len(content), block.size)]
    return found


def _messages() -> dict[str, Message]:
    """A message of every kind with fixed contents; some twice, with a body of one chunk and of several."""
    body = fixed_bytes("body", 600)
    long = fixed_bytes("long", 200_000)
    info = PartitionInfo("p0", "task", bytes(range(16)), 3, 3.0, 4, 0.5, "01")
    declared = Declaration("p0", "task", bytes(range(16)), 3, {"age": [1.5, "x", None], "n": 7})
    recipe = make_plan(PLACEMENTS["cyclic"], "relay").recipe()
    eight, sixteen, thirty_two = (bytes(range(n)) for n in (8, 16, 32))
    offer = Offer("w1", thirty_two, thirty_two, b"certificate")
    return {
        "hello": Hello(VERSION, "w0", 15.0),
        "challenge": Challenge("run", thirty_two),
        "proof": Proof(thirty_two, thirty_two[::-1]),
        "welcome": Welcome("run", {"rounds": 3, "loss": "squared"}, 30.0, thirty_two),
        "declare-some": DeclareSome((declared,)),
        "declare": Declare((declared,), 2, False, eight, wants="none"),
        "prepare": Prepare({"columns": {"age": [0.5, 2.0]}}, (bytes(range(32)),)),
        "ready": Ready((info,), (bytes(range(32)),)),
        "join-group": JoinGroup("239.1.2.3", 7701, thirty_two, sixteen, 1444),
        "joined-group": JoinedGroup("nothing was heard"),
        "assign": Assign(2, 5, False, "keep", recipe, sixteen, (info,), True),
        "snapshot": Snapshot(2, 5, eight, body),
        "await-restore": AwaitRestore(2),
        "restore": Restore(eight, body),
        "uplink": Uplink(2, 5, 3 * sixteen, body, 7),
        "uplink, long": Uplink(2, 5, 3 * sixteen, long, 0),
        "downlink": Downlink(2, 5, "end", eight, (body[:100], body[100:]), rest=7),
        "more-rows": MoreRows(2, 5, (body[:100], body[100:])),
        "done": Done(2, eight),
        "finish": Finish(),
        "loss-query": LossQuery(2, 5, 1, 4),
        "loss-report": LossReport(2, 5, 1, b"\0\2", 40),
        "fallback": Fallback(2, 5, 1, (body[:100], body[100:])),
        "listen": Listen(bytes(32)),
        "listens": Listens("10.0.0.2", 7702, b"certificate"),
        "peer-report": PeerReport(2, 5, ((0, 8, 40),)),
        "rows-lacking": RowsLacking(2, 5, "why"),
        "ask-rows": AskRows(2, 5, 1, 0, len(body)),
        "give-rows": GiveRows(2, 5, 1, 0, len(body), (body[:100], body[100:])),
        "heartbeat": Heartbeat(),
        "failure": Failure(3, "why", True),
        "standby": Standby("run", 30.0, thirty_two),
        "submit": Submit('{"name": "first"}', Then.END),
        "job-ended": JobEnded("first", "why", 3, b"{}"),
        "job": JobCall("run", "first", "dose"),
        "stream-end": StreamEnd(),
        "key-request": KeyRequest(offer, sixteen, 2, False),
        "group-keys": GroupKeys(offer, bytes(48)),
        "renewed-keys": RenewedKeys(offer, bytes(80)),
        "key-order": KeyOrder(3, 1, (offer,)),
        "keys-given": KeysGiven(3, (bytes(80), b"")),
    }
