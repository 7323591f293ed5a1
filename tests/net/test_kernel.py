"""The kernel's counters of a connection equal the bytes that the program read and wrote."""

from __future__ import annotations

import select
import socket

from asyncdmtl.net.kernel import KernelCount, kernel_count


def count(connection: socket.socket) -> KernelCount:
    found = kernel_count(connection)
    assert found is not None
    return found


def arrived(connection: socket.socket) -> None:
    assert select.select([connection], [], [], 10)[0]


def test_bytes_count_once_they_are_read_and_a_goodbye_does_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as ours, server.accept()[0] as theirs:
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
