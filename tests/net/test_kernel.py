"""The kernel's counters of a connection equal the bytes that the program read and wrote."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from collections.abc import Iterator

from asyncdmtl.net.kernel import KernelCount, kernel_count


def count(connection: socket.socket) -> KernelCount:
    found = kernel_count(connection)
    assert found is not None
    return found


@contextlib.contextmanager
def connected() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        with socket.create_connection(address) as one, server.accept()[0] as other:
            yield one, other


def arrived(connection: socket.socket) -> None:
    assert select.select([connection], [], [], 10)[0]


def test_bytes_count_once_they_are_read_and_a_goodbye_does_not() -> None:
    with connected() as (ours, theirs):
        ours.sendall(bytes(1000))
        arrived(theirs)
        assert count(theirs).received_bytes == 0
        assert len(theirs.recv(600)) == 600
        assert count(theirs).received_bytes == 600
        assert len(theirs.recv(600)) == 400
        assert (count(theirs).received_bytes, count(ours).sent_bytes) == (1000, 1000)
        ours.shutdown(socket.SHUT_WR)
        arrived(theirs)
        assert count(theirs).received_bytes == 1000
        assert theirs.recv(1) == b""
        assert count(theirs).received_bytes == 1000
    assert kernel_count(theirs) is None


def test_a_goodbye_does_not_count_either_if_both_have_said_it() -> None:
    with connected() as (ours, theirs):
        theirs.shutdown(socket.SHUT_WR)
        assert ours.recv(1) == b""
        ours.sendall(b"abc")
        ours.close()
        assert [theirs.recv(9), theirs.recv(9)] == [b"abc", b""]
        assert count(theirs).received_bytes == 3


def test_a_reset_is_no_goodbye() -> None:
    with connected() as (ours, theirs):
        ours.sendall(b"abc")
        assert theirs.recv(9) == b"abc"
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        ours.close()
        poll = select.poll()
        poll.register(theirs, select.POLLIN)
        assert poll.poll(10_000)
        assert count(theirs).received_bytes == 3
