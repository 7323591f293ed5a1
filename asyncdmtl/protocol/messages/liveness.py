"""The messages that either end may send at almost any time: a heartbeat, or the reason of a failure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from asyncdmtl.arrays import Bytes
from asyncdmtl.protocol import fields
from asyncdmtl.protocol.messages.base import Message

# The most characters of a reason: errors name at most a few hundred workers and partitions.
MAX_REASON_LENGTH = 4_000

# The largest exit code of a failure. Larger codes are for signals, and must not come from a peer.
MAX_EXIT_CODE = 6


@dataclass(frozen=True, eq=False)
class Heartbeat(Message):
    """Shows that the sender is alive."""

    number, kind, sender = 14, "heartbeat", "either"


@dataclass(frozen=True, eq=False)
class Failure(Message):
    """Ends the connection with a reason.

    Attributes
    ----------
    exit_code : int
        The sender's exit code.
    reason : str
        The reason as text for people; control characters are replaced.
    worker_may_return : bool
        Sent by a server: whether the worker may connect again, because the run goes on or will be resumed.
    """

    number, kind, sender = 15, "failure", "either"
    exit_code: int
    reason: str
    worker_may_return: bool = False

    def fields(self) -> list[Any]:
        return [self.exit_code, self.reason[:MAX_REASON_LENGTH], self.worker_may_return]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> Failure:
        exit_code, reason, worker_may_return = fields.exactly(values, 3, cls.kind)
        shown = "".join(
            c if c.isprintable() else "\N{REPLACEMENT CHARACTER}"
            for c in fields.text(reason, "reason", MAX_REASON_LENGTH)
        )
        return cls(
            fields.integer(exit_code, "exit code", 1, MAX_EXIT_CODE),
            shown,
            fields.flag(worker_may_return, "worker may return"),
        )
