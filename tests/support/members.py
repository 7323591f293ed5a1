"""Members of a run whose connections were never made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from asyncdmtl.learning.tasks import Partition
from asyncdmtl.net.connection import Connection
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.protocol.messages.registry import Message
from asyncdmtl.server.member import Member


def make_member(name: str, partitions: Sequence[Partition] = (), **facts: Any) -> Member:
    """A worker that declared these partitions; for a test that runs in an event loop."""
    connection = Connection("server", Ledger(), 1.0)
    connection.session.worker = name
    return Member(name, connection, tuple(part.declaration() for part in partitions), **facts)


class Script:
    """A member that is ready, whose connection has lists in place of a socket.

    Attributes
    ----------
    member : Member
    sent : list of Message
        The server's messages to it, in order.
    """

    def __init__(self, name: str, partitions: Sequence[Partition] = (), **facts: Any) -> None:
        self.member = make_member(name, partitions, **{"ready": True, **facts})
        self.sent: list[Any] = []
        connection: Any = self.member.connection
        connection.write = self.sent.append
        connection.link._writable.set()

    def says(self, *messages: Message) -> None:
        """Let messages of the worker arrive."""
        for message in messages:
            self.member.connection.inbox.put(message)
