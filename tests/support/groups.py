"""Groups for tests: on the loopback, each with a port of its own."""

from __future__ import annotations

import socket

from asyncdmtl.net.udp import Group

LOOPBACK = "127.0.0.1"


def free_group() -> Group:
    """A group on a port that is free just now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as tried:
        tried.bind(("", 0))
        return Group("239.192.77.77", tried.getsockname()[1])
