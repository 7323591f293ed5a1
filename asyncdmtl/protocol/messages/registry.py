"""All kinds of messages, and their conversion to frames and back.

A head is the msgpack array `[number, field, field, …]`. Types and ranges of fields are checked here. Sizes
that depend on the plan, such as the rows of a body or the count of digests, are checked by the ends of a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext, suppress
from typing import Any

import msgpack

from asyncdmtl.arrays import Bytes
from asyncdmtl.errors import RemoteProtocolError
from asyncdmtl.protocol.framing import Buffer, encode_frame
from asyncdmtl.protocol.garbage import without_collection
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
from asyncdmtl.protocol.messages.keys import (
    GroupKeys,
    KeyControl,
    KeyOrder,
    KeyRequest,
    KeysGiven,
    RenewedKeys,
)
from asyncdmtl.protocol.messages.liveness import Failure, Heartbeat
from asyncdmtl.protocol.messages.multicast import (
    Fallback,
    JoinedGroup,
    JoinGroup,
    LossQuery,
    LossReport,
    MulticastControl,
)
from asyncdmtl.protocol.messages.peers import (
    AskRows,
    GiveRows,
    Listen,
    Listens,
    Peer,
    PeerReport,
    PeerRows,
    RowsLacking,
)
from asyncdmtl.protocol.messages.rounds import (
    AfterRound,
    Assign,
    AwaitRestore,
    Done,
    Downlink,
    Finish,
    MoreRows,
    Restore,
    Snapshot,
    StateTransfer,
    Uplink,
)
from asyncdmtl.protocol.messages.streams import JobCall, JobEnded, Standby, StreamEnd, Submit

__all__ = [
    "KINDS",
    "VERSION",
    "AfterRound",
    "AskRows",
    "Assign",
    "AwaitRestore",
    "Challenge",
    "Declare",
    "DeclareSome",
    "Done",
    "Downlink",
    "Failure",
    "Fallback",
    "Finish",
    "GiveRows",
    "GroupKeys",
    "Heartbeat",
    "Hello",
    "JobCall",
    "JobEnded",
    "JoinGroup",
    "JoinedGroup",
    "KeyControl",
    "KeyOrder",
    "KeyRequest",
    "KeysGiven",
    "Listen",
    "Listens",
    "LossQuery",
    "LossReport",
    "Message",
    "MoreRows",
    "MulticastControl",
    "Peer",
    "PeerReport",
    "PeerRows",
    "Prepare",
    "Proof",
    "Ready",
    "RenewedKeys",
    "Restore",
    "RowsLacking",
    "Snapshot",
    "Standby",
    "StateTransfer",
    "StreamEnd",
    "Submit",
    "Uplink",
    "Welcome",
    "frame_message",
    "pack",
    "unpack",
]

# The most lists and maps in one head. An empty list is one byte on the wire and seventy in memory; a column
# of a valid survey takes two of them.
MAX_CONTAINERS = 400_000

# The most items of a list, and so the most columns of a survey.
MAX_ITEMS = 200_000

# The most keys of a map: settings, recipes and surveys have some ten.
MAX_KEYS = 256

# The bytes of a head that are read at one time, without a pause for other threads: less than a millisecond's
# work.
SLICE_BYTES = 1 << 14

KINDS: Mapping[int, type[Message]] = {
    cls.number: cls
    for cls in (
        *(Hello, Challenge, Proof, Welcome, DeclareSome, Declare, Prepare, Ready, JoinGroup, JoinedGroup),
        *(Assign, Snapshot, AwaitRestore, Restore, Uplink, Downlink, MoreRows, Done, Finish),
        *(LossQuery, LossReport, Fallback),
        *(Listen, Listens, PeerReport, RowsLacking, AskRows, GiveRows),
        *(Heartbeat, Failure),
        *(Standby, JobCall, StreamEnd, Submit, JobEnded),
        *(KeyRequest, GroupKeys, RenewedKeys, KeyOrder, KeysGiven),
    )
}


def pack(message: Message) -> bytes:
    """The head of a message."""
    packed: bytes = msgpack.packb([message.number, *message.fields()])
    return packed


def frame_message(message: Message) -> tuple[list[Buffer], int]:
    """The buffers of the frame of a message, to be written in their order, and the sum of their bytes."""
    return encode_frame(pack(message), message.rows())


def unpack(head: bytes, body: Bytes) -> Message:
    """The message in a frame.

    Parameters
    ----------
    head : bytes
        Reading it takes memory of at most some 25 times its length, for any content.
    body : uint8 array (payload bytes,)

    Raises
    ------
    RemoteProtocolError
        The frame holds no message, or a field is wrong; the error names it.
    """
    values = _values(head)
    if type(values) is not list or not values or type(values[0]) is not int or values[0] not in KINDS:
        raise RemoteProtocolError("head must be a list that begins with the number of a kind of message")
    cls = KINDS[values[0]]
    if len(body) and not cls.has_body:
        raise RemoteProtocolError(f"{cls.kind} has no body, but {len(body)} bytes of it came")
    return cls.parse(values[1:], body)


def _values(head: bytes) -> Any:
    """The msgpack value in a head, in plain types; pairs in a large declaration are tuples."""
    left, large = MAX_CONTAINERS, len(head) > SLICE_BYTES
    # A large declaration has pairs of the names and the facts of columns. Python's search for cyclic
    # references, which stops all threads, goes through lists each time, but only once through such tuples.
    pairs = large and head[1] in (Declare.number, DeclareSome.number)

    def counted(container: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise RemoteProtocolError(f"head has more than {MAX_CONTAINERS} lists and maps")
        if pairs and type(container) is list and len(container) == 2 and type(container[0]) is str:
            return tuple(container)
        return container

    rules = {
        "strict_map_key": True,
        "list_hook": counted,
        "object_hook": counted,
        "ext_hook": _no_extension,
        # msgpack allocates memory for all announced items before it reads the first. In the longest valid
        # lists, items have more than 16 bytes each.
        "max_array_len": min(1000 + len(head) // 16, MAX_ITEMS),
        "max_map_len": MAX_KEYS,
        "max_ext_len": 0,
    }
    try:
        if not large:
            return msgpack.unpackb(head, **rules)
        with nullcontext() if pairs else without_collection():
            return _in_slices(head, msgpack.Unpacker(max_buffer_size=len(head) + 1, **rules))
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise RemoteProtocolError(f"head is not msgpack: {type(error).__name__}: {error}") from error


def _in_slices(head: bytes, unpacker: msgpack.Unpacker) -> Any:
    """The one value in a head, which is read in slices; an unpacker remembers where a slice ended."""
    for end in range(SLICE_BYTES, len(head) + SLICE_BYTES, SLICE_BYTES):
        unpacker.feed(head[end - SLICE_BYTES : end])
        with suppress(msgpack.OutOfData):
            value = unpacker.unpack()
            if unpacker.tell() < len(head):
                raise ValueError("bytes follow the list")
            return value
    raise ValueError("the list is incomplete")


def _no_extension(code: int, content: bytes) -> Any:
    raise RemoteProtocolError(f"head has an extension of msgpack, {code}")
