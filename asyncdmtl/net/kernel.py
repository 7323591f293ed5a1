"""The kernel's own counters of a connection: `TCP_INFO`, which Linux has."""

from __future__ import annotations

import socket
import struct
from dataclasses import astuple, dataclass

# The option that reads the counters; None where the system has none.
TCP_INFO = getattr(socket, "TCP_INFO", None)

# Places in struct tcp_info of <linux/tcp.h>, in bytes; new fields are only added at its end. After
# tcpi_bytes_acked comes tcpi_bytes_received.
_BYTES_ACKED = 120

# Here begin tcpi_segs_out and tcpi_segs_in.
_SEGMENTS_OUT = 136

# Here begin tcpi_bytes_sent and tcpi_bytes_retrans.
_BYTES_SENT = 200

# Bytes of the struct with all of these fields (Linux 4.19).
_SIZE = 216

# Bytes that are asked for: more than the struct has, so that all of it is given.
_ROOM = 512

# States of <net/tcp_states.h> after the peer's FIN: TIME_WAIT, CLOSE_WAIT, LAST_ACK, CLOSING.
_FIN_RECEIVED = {6, 8, 9, 11}


@dataclass(frozen=True)
class KernelCount:
    """Bytes of TCP payload, and segments, as this machine's kernel counted them.

    Attributes
    ----------
    received_bytes : int
        Bytes that the program has read.
    sent_bytes : int
        Bytes that were sent, with those that were sent again.
    retransmitted_bytes : int
        Bytes that were sent again.
    segments_in, segments_out : int
    """

    received_bytes: int
    sent_bytes: int
    retransmitted_bytes: int
    segments_in: int
    segments_out: int

    def __add__(self, other: KernelCount) -> KernelCount:
        return KernelCount(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


def kernel_count(connection: socket.socket) -> KernelCount | None:
    """The counters of a TCP connection, or None where the kernel does not give them."""
    if TCP_INFO is None:
        return None
    # Imported here: Windows has neither.
    import fcntl
    import termios

    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, TCP_INFO, _ROOM)
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
