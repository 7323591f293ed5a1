"""What the kernel counted on a connection: `TCP_INFO`, where there is one (Linux)."""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
from dataclasses import astuple, dataclass

TCP_INFO = getattr(socket, "TCP_INFO", None)

# struct tcp_info of <linux/tcp.h>; fields were only ever added at its end.
_BYTES_ACKED = 120
_SEGMENTS_OUT = 136
_BYTES_SENT = 200
_SIZE = 216

# States of <net/tcp_states.h> after the peer's FIN: TIME_WAIT, CLOSE_WAIT, LAST_ACK, CLOSING.
_FIN_RECEIVED = {6, 8, 9, 11}


@dataclass(frozen=True)
class KernelCount:
    """Bytes of TCP payload and segments, as the kernel of this host saw them.

    `received_bytes` are those that the program has read; `sent_bytes` includes what was retransmitted.
    """

    received_bytes: int
    sent_bytes: int
    retransmitted_bytes: int
    segments_in: int
    segments_out: int

    def __add__(self, other: KernelCount) -> KernelCount:
        return KernelCount(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


def kernel_count(connection: socket.socket) -> KernelCount | None:
    """The counters of a TCP connection, or None where the kernel does not tell them."""
    if TCP_INFO is None:
        return None
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, TCP_INFO, 512)
        unread = struct.unpack("=i", fcntl.ioctl(connection.fileno(), termios.FIONREAD, bytes(4)))[0]
    except OSError:
        return None
    if len(info) < _SIZE:
        return None
    received = struct.unpack_from("=Q", info, _BYTES_ACKED + 8)[0] - unread
    if info[0] in _FIN_RECEIVED:
        received -= 1  # the kernel counts the FIN as a byte
    segments_out, segments_in = struct.unpack_from("=II", info, _SEGMENTS_OUT)
    sent, retransmitted = struct.unpack_from("=QQ", info, _BYTES_SENT)
    return KernelCount(received, sent, retransmitted, segments_in, segments_out)
