"""What attacks of `tools/attack.py` share: replaced functions of a worker, and messages past its checks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from asyncdmtl.net.connection import Connection
from asyncdmtl.protocol.messages.registry import Message, frame_message

# Rounds that an attacker makes honestly first.
HONEST = 3


def put_in(owner: Any, name: str, changed: Any) -> None:
    """Replace a function of a class or module."""
    setattr(owner, name, changed)


def send_unchecked(connection: Connection, messages: Sequence[Message], times: int = 1) -> None:
    """Send messages past the checks of this end."""
    if not connection.lost:
        data = b"".join(bytes(part) for message in messages for part in frame_message(message)[0])
        connection.link.write([data * times])
