"""The messages: immutable values, with every field checked when one arrives.

A head is the msgpack array `[kind, field, field, …]`. Sizes that depend on the plan (rows of a body,
number of digests) are checked by the two sides of a run; types and ranges are checked here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgpack

from asyncdmtl.arrays import Bytes
from asyncdmtl.errors import RemoteProtocolError
from asyncdmtl.protocol import fields
from asyncdmtl.protocol.messages.base import Message
from asyncdmtl.protocol.messages.joining import (
    VERSION,
    Challenge,
    Declare,
    Hello,
    Prepare,
    Proof,
    Ready,
    Welcome,
)
from asyncdmtl.protocol.messages.multicast import (
    Fallback,
    JoinedGroup,
    JoinGroup,
    LossQuery,
    LossReport,
    MulticastControl,
)
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

__all__ = [
    "KINDS",
    "VERSION",
    "Assign",
    "AwaitRestore",
    "Challenge",
    "Declare",
    "Done",
    "Downlink",
    "Failure",
    "Fallback",
    "Finish",
    "Heartbeat",
    "Hello",
    "JoinGroup",
    "JoinedGroup",
    "LossQuery",
    "LossReport",
    "Message",
    "MoreRows",
    "MulticastControl",
    "Prepare",
    "Proof",
    "Ready",
    "Restore",
    "Snapshot",
    "Uplink",
    "Welcome",
    "pack",
    "unpack",
]

TEXT_LENGTH = 4_000
MOST_EXIT_CODE = 6

# What one head may hold. An empty list is one byte on the wire and seventy in memory; a column of an honest
# survey takes forty bytes and two containers.
MOST_CONTAINERS = 400_000
MOST_ITEMS = 200_000
MOST_KEYS = 256


@dataclass(frozen=True, eq=False)
class Heartbeat(Message):
    """Either side: I am alive."""

    number, kind, sender = 14, "heartbeat", "either"


@dataclass(frozen=True, eq=False)
class Failure(Message):
    """Either side: this connection is over, and why.

    `exit_code` is the code that the sender exits with. From a server, `worker_may_return` says that the
    worker may connect again: the run goes on, or will be resumed.
    """

    number, kind, sender = 15, "failure", "either"
    exit_code: int
    reason: str
    worker_may_return: bool = False

    def fields(self) -> list[Any]:
        return [self.exit_code, self.reason[:TEXT_LENGTH], self.worker_may_return]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> Failure:
        exit_code, reason, worker_may_return = fields.exactly(values, 3, cls.kind)
        # The reason is shown on a terminal: nothing in it may steer one.
        shown = "".join(
            c if c.isprintable() else "\N{REPLACEMENT CHARACTER}"
            for c in fields.text(reason, "reason", TEXT_LENGTH)
        )
        return cls(
            fields.integer(exit_code, "exit code", 1, MOST_EXIT_CODE),
            shown,
            fields.flag(worker_may_return, "worker may return"),
        )


KINDS: Mapping[int, type[Message]] = {
    cls.number: cls
    for cls in (
        *(Hello, Challenge, Proof, Welcome, Declare, Prepare, Ready, JoinGroup, JoinedGroup),
        *(Assign, Snapshot, AwaitRestore, Restore, Uplink, Downlink, MoreRows, Done, Finish),
        *(LossQuery, LossReport, Fallback),
        *(Heartbeat, Failure),
    )
}


def pack(message: Message) -> bytes:
    """The head of `message`."""
    packed: bytes = msgpack.packb([message.number, *message.fields()])
    return packed


def unpack(head: bytes, body: Bytes) -> Message:
    """The message in a frame; RemoteProtocolError says what is wrong with it.

    Whatever is in the head, this takes at the most some 25 times its length of memory.
    """
    values = _values(head)
    if type(values) is not list or not values or type(values[0]) is not int or values[0] not in KINDS:
        raise RemoteProtocolError("head must be a list that begins with a known kind of message")
    cls = KINDS[values[0]]
    if len(body) and not cls.has_body:
        raise RemoteProtocolError(f"{cls.kind} has no body, but {len(body)} bytes of it came")
    return cls.parse(values[1:], body)


def _values(head: bytes) -> Any:
    """What a head says, in plain types."""
    left = MOST_CONTAINERS

    def counted(container: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise RemoteProtocolError(f"head has more than {MOST_CONTAINERS} lists and maps")
        return container

    unpackb: Callable[..., Any] = msgpack.unpackb
    try:
        return unpackb(
            head,
            strict_map_key=True,
            list_hook=counted,
            object_hook=counted,
            ext_hook=_no_extension,
            # Room for all items is made before they come. (The longest lists have the longest items.)
            max_array_len=min(1000 + len(head) // 16, MOST_ITEMS),
            max_map_len=MOST_KEYS,
            max_ext_len=0,
        )
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise RemoteProtocolError(f"head is not msgpack: {type(error).__name__}: {error}") from error


def _no_extension(code: int, content: bytes) -> Any:
    raise RemoteProtocolError(f"head has an extension of msgpack, {code}")
