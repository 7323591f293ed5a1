"""Members of a run whose connections were never made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from asyncdmtl.learning.tasks import Partition
from asyncdmtl.net.connection import Connection
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.server.member import Member


def make_member(name: str, partitions: Sequence[Partition] = (), **facts: Any) -> Member:
    """A worker that declared these partitions; for a test that runs in an event loop."""
    connection = Connection("server", Ledger(), 1.0)
    connection.session.worker = name
    return Member(name, connection, tuple(part.declaration() for part in partitions), **facts)
