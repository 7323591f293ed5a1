"""Record the packets of an interface, one by one: `python capture.py SERVER PORT`, in the server's namespace.

Reads every packet of eth0 until standard input ends; then prints one JSON object. TCP streams are reassembled
and read as frames, so that each byte is classified: payload or framing of a round, a header of Ethernet, IP
or TCP, or a retransmission. Nothing comes from the measured program. Only plaintext can be read.
"""

from __future__ import annotations

import json
import selectors
import socket
import struct
import sys
from collections.abc import Iterator

import msgpack

from asyncdmtl.protocol.framing import CHECK_BYTES, bin_header, chunk_lengths, unpack_prefix
from asyncdmtl.protocol.messages.registry import KINDS

# Bytes of the kernel's buffer for unread packets; and socket options of <linux/if_packet.h>.
ROOM = 1 << 29
SO_RCVBUFFORCE, SOL_PACKET, PACKET_STATISTICS = 33, 263, 6
ALL_PROTOCOLS = 3

ETHERNET, IP_4, TCP = 14, 0x0800, 6
SYN = 0x02

# The kinds of messages that carry the rows of a round. Their heads begin with kind, plan and round.
OF_ROUNDS = ("uplink", "downlink", "more-rows")

# A frame: its round, or None if it belongs to no round; bytes of payload; bytes of framing.
Found = tuple[int | None, int, int]


class Frames:
    """Finds the frames in one direction of a connection; `feed` returns those that end."""

    def __init__(self) -> None:
        self._start = bytearray()
        self._body_left = 0
        self._found: Found = (None, 0, 0)

    def feed(self, data: memoryview) -> Iterator[Found]:
        """The frames that end within these bytes."""
        while data:
            if self._body_left:
                count = min(self._body_left, len(data))
                self._body_left -= count
            else:
                count = min(self._lacking(), len(data))
                self._start += data[:count]
                if not self._lacking():
                    self._begin()
            data = data[count:]
            if not self._body_left and not self._start:
                yield self._found

    def _lacking(self) -> int:
        """Bytes until the head is complete."""
        prefix = unpack_prefix(memoryview(self._start))
        if prefix is None:
            return 1
        head_length, _, prefix_bytes = prefix
        return prefix_bytes + head_length - len(self._start)

    def _begin(self) -> None:
        """Note the content of a complete head, and skip the body."""
        prefix = unpack_prefix(bytes(self._start))
        assert prefix is not None
        head_length, body_length, prefix_bytes = prefix
        head = msgpack.unpackb(bytes(self._start[prefix_bytes:-CHECK_BYTES]))
        round_ = int(head[2]) if KINDS[head[0]].kind in OF_ROUNDS else None
        bins = sum(len(bin_header(length)) for length in chunk_lengths(body_length))
        self._body_left = body_length + bins
        self._found = (round_, body_length, prefix_bytes + head_length + bins)
        self._start.clear()


class Stream:
    """One direction of a connection: its bytes in order, each once."""

    def __init__(self, sequence: int) -> None:
        self._next = sequence
        self._early: dict[int, bytes] = {}
        self._frames = Frames()

    def take(self, sequence: int, data: memoryview) -> tuple[int, list[Found]]:
        """The number of retransmitted bytes, and the frames that are complete now."""
        ahead = (sequence - self._next + (1 << 31)) % (1 << 32) - (1 << 31)
        again = min(max(-ahead, 0), len(data))
        if ahead > 0:
            known = len(self._early.get(sequence, b""))
            if len(data) > known:
                self._early[sequence] = bytes(data)
            return min(known, len(data)), []
        found = self._pass(data[again:])
        while (early := self._early.pop(self._next, None)) is not None:
            found += self._pass(memoryview(early))
        return again, found

    def _pass(self, data: memoryview) -> list[Found]:
        self._next = (self._next + len(data)) % (1 << 32)
        return list(self._frames.feed(data))


class Capture:
    """Bytes by round and direction, from packets.

    Attributes
    ----------
    counts : dict of (round or None, "up" or "down") to dict
        Bytes of payload, framing, headers, and what was retransmitted; and packets. Headers and what was
        retransmitted count for the latest round in either direction of the connection.
    """

    def __init__(self, server: str, port: int) -> None:
        self.counts: dict[tuple[int | None, str], dict[str, int]] = {}
        self._server = socket.inet_aton(server), port
        self._streams: dict[tuple[bytes, str], Stream] = {}
        self._rounds: dict[bytes, int | None] = {}

    def packet(self, data: memoryview) -> None:
        """Process one packet, Ethernet header included."""
        ip = data[ETHERNET:]
        if struct.unpack_from(">H", data, 12)[0] != IP_4 or ip[9] != TCP:
            return
        ends = (bytes(ip[12:16]), bytes(ip[16:20]))
        length = struct.unpack_from(">H", ip, 2)[0] or len(ip)
        tcp = ip[(ip[0] & 15) * 4 : length]
        source, target, sequence = struct.unpack_from(">HHI", tcp)
        if (ends[0], source) == self._server:
            direction, peer = "down", ends[1] + target.to_bytes(2, "big")
        elif (ends[1], target) == self._server:
            direction, peer = "up", ends[0] + source.to_bytes(2, "big")
        else:
            return
        payload = tcp[(tcp[12] >> 4) * 4 :]
        if tcp[13] & SYN:
            self._streams[peer, direction] = Stream((sequence + 1) % (1 << 32))
        elif payload and (stream := self._streams.get((peer, direction))) is not None:
            again, found = stream.take(sequence, payload)
            for round_, body, framing in found:
                self._add(round_, direction, payload=body, framing=framing)
                if round_ is not None:
                    self._rounds[peer] = round_
            self._add(self._rounds.get(peer), direction, retransmitted=again)
        self._add(self._rounds.get(peer), direction, headers=len(data) - len(payload), packets=1)

    def _add(self, round_: int | None, direction: str, **counts: int) -> None:
        sums = self.counts.setdefault(
            (round_, direction),
            {"payload": 0, "framing": 0, "headers": 0, "retransmitted": 0, "packets": 0},
        )
        for name, count in counts.items():
            sums[name] += count


def main(server: str, port: int) -> None:
    """Capture until standard input ends."""
    capture, room = Capture(server, port), bytearray(1 << 17)
    view = memoryview(room)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_PROTOCOLS)) as packets:
        packets.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, ROOM)
        packets.bind(("eth0", 0))
        print("capturing", flush=True)
        with selectors.DefaultSelector() as waiting:
            waiting.register(packets, selectors.EVENT_READ)
            waiting.register(sys.stdin, selectors.EVENT_READ)
            # Standard input may end before the last packets were read.
            while any(key.fileobj is packets for key, _ in waiting.select()):
                capture.packet(view[: packets.recv_into(view)])
        lost = struct.unpack("II", packets.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[1]
    rows = [{"round": key[0], "direction": key[1], **counts} for key, counts in capture.counts.items()]
    print(json.dumps({"lost_packets": lost, "rows": rows}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
