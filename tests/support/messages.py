"""Messages for tests: one of every kind, and the bytes of any of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from asyncdmtl.arithmetic.probe import Machine
from asyncdmtl.blinding.agreement import Offer
from asyncdmtl.exchange.upload import Layout
from asyncdmtl.learning.tasks import Declaration, PartitionInfo
from asyncdmtl.protocol.framing import Buffer
from asyncdmtl.protocol.messages.base import Message
from asyncdmtl.protocol.messages.joining import (
    VERSION,
    Challenge,
    Declare,
    DeclareSome,
    Hello,
    Prepare,
    Proof,
    Ready,
    Welcome,
)
from asyncdmtl.protocol.messages.keys import GroupKeys, KeyOrder, KeyRequest, KeysGiven, RenewedKeys
from asyncdmtl.protocol.messages.liveness import Failure, Heartbeat
from asyncdmtl.protocol.messages.multicast import Fallback, JoinedGroup, JoinGroup, LossQuery, LossReport
from asyncdmtl.protocol.messages.peers import (
    AskRows,
    GiveRows,
    Listen,
    Listens,
    Peer,
    PeerReport,
    RowsLacking,
)
from asyncdmtl.protocol.messages.registry import frame_message
from asyncdmtl.protocol.messages.rounds import (
    Assign,
    AwaitRestore,
    Done,
    Downlink,
    Finish,
    MoreRows,
    Restore,
    Snapshot,
    Uplink,
)
from asyncdmtl.protocol.messages.streams import JobCall, JobEnded, Standby, StreamEnd, Submit, Then

BODY = np.arange(6, dtype=np.uint8)
PEER = Peer("w1", "10.0.0.2", 7702, b"certificate", bytes(32))
OFFER = Offer("w1", bytes(32), bytes(32))
INFO = PartitionInfo("p0", "task", bytes(16), 3, 3.0, 4, 0.5)
DECLARATION = Declaration("p0", "task", bytes(16), 3, {"age": [1.5, "x"]})

EXAMPLES: dict[str, Message] = {
    message.kind: message
    for message in (
        Hello(VERSION, "w0"),
        Challenge("run", bytes(32)),
        Proof(bytes(32), bytes(32)),
        Welcome("run", {"rounds": 3, "loss": "squared"}),
        DeclareSome((DECLARATION,)),
        Declare(
            (DECLARATION,), 2, False, bytes(16), Machine({"sums": bytes(16)}, {"NumPy": "2.4.6"}), "none"
        ),
        Prepare({"columns": {}}, (bytes(32),)),
        Ready((INFO,), (bytes(range(32)),)),
        JoinGroup("239.1.2.3", 7701, bytes(32), bytes(16), 1444),
        JoinedGroup("nothing was received"),
        Assign(0, 0, False, "keep", {"version": 1}, bytes(16), (INFO,), True, peers=(PEER,), shared=True),
        Snapshot(0, 2, bytes(16), BODY),
        AwaitRestore(0),
        Restore(bytes(16), BODY),
        Uplink(0, 2, bytes(48), BODY),
        Downlink(0, 2, "end", bytes(16), (BODY[:3], BODY[3:]), rest=7),
        MoreRows(0, 2, (BODY[:3], BODY[3:])),
        LossQuery(0, 1, 8, 4),
        LossReport(0, 1, 8, b"\0\2", 40),
        Fallback(0, 1, 8, (BODY[:3], BODY[3:])),
        Listen(bytes(32)),
        Listens("10.0.0.2", 7702, b"certificate"),
        PeerReport(0, 1, ((0, 8, 40),)),
        RowsLacking(0, 1, "cannot reach worker 'w1'"),
        AskRows(0, 1, 2, 0, 6),
        GiveRows(0, 1, 2, 0, 6, (BODY[:3], BODY[3:])),
        Done(0, bytes(16), critical_strength=0.5),
        Finish(0.5),
        Heartbeat(),
        Failure(3, "why", True),
        Standby("run"),
        JobCall("run", "job", "dose"),
        StreamEnd(),
        KeyRequest(OFFER, bytes(16)),
        GroupKeys(OFFER, bytes(48)),
        RenewedKeys(OFFER, bytes(80)),
        KeyOrder(0, 1, (OFFER,)),
        KeysGiven(0, (bytes(80),)),
        Submit('{"name": "job"}', Then.WAIT),
        JobEnded("job", "why", 3, b"{}"),
    )
}


def joined(buffers: Iterable[Buffer]) -> bytes:
    """The concatenation of some buffers."""
    return b"".join(map(bytes, buffers))


def wire_bytes(message: Message) -> bytes:
    """The frame of a message."""
    return joined(frame_message(message)[0])


def retold(layout: Layout, uplink: Uplink, **changes: Any) -> Uplink:
    """An uplink with some of the values changed that it tells."""
    upload = layout.unpack(uplink.told, (), 0)
    return replace(uplink, told=layout.pack(replace(upload, **changes)))
