"""TCP ports that are free at the moment."""

from __future__ import annotations

import socket


def free_port() -> int:
    """A port of the loopback on which nothing listens."""
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return int(tried.getsockname()[1])
