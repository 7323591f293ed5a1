"""The kernel's own counters of a connection: `TCP_INFO`, which Linux has."""

from __future__ import annotations

import select
import socket
import struct
from dataclasses import astuple, dataclass

# Imported at the start, because later the process may have no free file descriptors.
try:
    import fcntl
    import termios
except ImportError:  # Windows has neither, and no TCP_INFO
    pass

# The socket option that reads the counters; None if the system lacks it.
TCP_INFO = getattr(socket, "TCP_INFO", None)

# The offset of tcpi_snd_mss.
_SEGMENT_BYTES = 16

# Bytes of headers of a segment on Ethernet: 14 of the frame, 20 of IPv4, 20 of TCP, and 12 of its timestamps.
HEADER_BYTES = 66

# Segments that arrive for each acknowledgement: Linux acknowledges every second one, and those that arrive
# together at once. Between namespaces it was one for four.
SEGMENTS_ACKNOWLEDGED = 4

# The offset of tcpi_bytes_acked and tcpi_bytes_received in struct tcp_info of <linux/tcp.h>, in bytes. New
# fields are only added at its end.
_BYTES_ACKED = 120

# The offset of tcpi_segs_out and tcpi_segs_in.
_SEGMENTS_OUT = 136

# The offset of tcpi_bytes_sent and tcpi_bytes_retrans.
_BYTES_SENT = 200

# Bytes of the struct with all of these fields (Linux 4.19).
_SIZE = 216

# The size of the buffer in bytes: larger than the struct, so that the kernel returns all of it.
_ROOM = 512

# States of <net/tcp_states.h> after the peer's FIN: TIME_WAIT, CLOSE_WAIT, LAST_ACK, CLOSING.
_FIN_RECEIVED = {6, 8, 9, 11}

# The state of a socket of which both ends have sent a FIN, or which was reset: CLOSE.
_CLOSED = 7


@dataclass(frozen=True)
class KernelCount:
    """Bytes of TCP payload, and segments, as this machine's kernel counted them.

    Attributes
    ----------
    received_bytes : int
        Bytes that the program has read.
    sent_bytes : int
        Bytes that were sent, including retransmissions.
    retransmitted_bytes : int
        Bytes that were retransmitted.
    segments_in, segments_out : int
    segment_bytes : int
        The most bytes in a segment that was sent, by the smallest MTU on the way.
    """

    received_bytes: int
    sent_bytes: int
    retransmitted_bytes: int
    segments_in: int
    segments_out: int
    segment_bytes: int

    def __add__(self, other: KernelCount) -> KernelCount:
        (*own, size), (*others, other_size) = astuple(self), astuple(other)
        sums = [a + b for a, b in zip(own, others, strict=True)]
        return KernelCount(*[*sums, min(size, other_size)])

    @property
    def payload_share(self) -> float:
        """The share of payload in the bytes that long messages take on the link."""
        return self.segment_bytes / (self.segment_bytes + HEADER_BYTES)

    @property
    def acknowledging(self) -> float:
        """Bytes of acknowledgements that go back for each byte that a long message takes on the link."""
        return HEADER_BYTES / (self.segment_bytes + HEADER_BYTES) / SEGMENTS_ACKNOWLEDGED


def kernel_count(connection: socket.socket) -> KernelCount | None:
    """The counters of a TCP connection; None if the kernel does not provide them."""
    if TCP_INFO is None:
        return None
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, TCP_INFO, _ROOM)
        unread = struct.unpack("=i", fcntl.ioctl(connection.fileno(), termios.FIONREAD, bytes(4)))[0]
    except OSError:
        return None
    if len(info) < _SIZE:
        return None
    received = struct.unpack_from("=Q", info, _BYTES_ACKED + 8)[0] - unread
    if _fin_received(connection, info[0]):
        received -= 1  # the kernel counts the FIN as a byte
    segments_out, segments_in = struct.unpack_from("=II", info, _SEGMENTS_OUT)
    sent, retransmitted = struct.unpack_from("=QQ", info, _BYTES_SENT)
    (size,) = struct.unpack_from("=I", info, _SEGMENT_BYTES)
    return KernelCount(received, sent, retransmitted, segments_in, segments_out, size)


def _fin_received(connection: socket.socket, state: int) -> bool:
    """Whether a socket's peer has sent a FIN. If it has sent a reset, that error must not be read yet."""
    if state != _CLOSED:
        return state in _FIN_RECEIVED
    poll = select.poll()
    poll.register(connection, 0)
    return not any(events & select.POLLERR for _, events in poll.poll(0))
