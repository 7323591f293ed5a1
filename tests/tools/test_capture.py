"""Captured packets are reassembled, and every byte of them is accounted for."""

from __future__ import annotations

import importlib
import random
import socket
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asyncdmtl.protocol.messages import registry
from asyncdmtl.protocol.messages.registry import Downlink, Heartbeat, Uplink

TOOLS = Path(__file__).parents[2] / "tools"

SERVER, WORKER = ("10.77.0.1", 7700), ("10.77.0.2", 40000)


@pytest.fixture(autouse=True)
def _tools_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(TOOLS)


def capture() -> Any:
    return importlib.import_module("capture").Capture(*SERVER)


def encoded(message: Any) -> tuple[bytes, int]:
    """A message on the wire, and the bytes of its body."""
    buffers, _ = registry.frame_message(message)
    return b"".join(bytes(buffer) for buffer in buffers), sum(row.nbytes for row in message.rows())


def uplink(round_: int, size: int) -> Uplink:
    return Uplink(0, round_, b"", np.arange(size, dtype=np.uint8))


def packet(
    source: tuple[str, int], target: tuple[str, int], sequence: int, data: bytes, flags: int = 0x10
) -> bytes:
    """A packet as it is on an Ethernet."""
    tcp = struct.pack(">HHIIBBHHH", source[1], target[1], sequence % 2**32, 0, 5 << 4, flags, 1000, 0, 0)
    length = 20 + len(tcp) + len(data)
    addresses = socket.inet_aton(source[0]) + socket.inet_aton(target[0])
    ip = struct.pack(">BBHHHBBH", 0x45, 0, length, 0, 0, 64, 6, 0) + addresses
    return bytes(12) + b"\x08\x00" + ip + tcp + data


def sent(data: bytes, size: int, start: int = 2**32 - 700) -> list[bytes]:
    """A worker's bytes in packets of `size` bytes, with sequence numbers that wrap round."""
    first = [packet(WORKER, SERVER, start - 1, b"", 0x02)]
    return first + [
        packet(WORKER, SERVER, start + at, data[at : at + size]) for at in range(0, len(data), size)
    ]


def counted(packets: list[bytes]) -> dict[Any, dict[str, int]]:
    seen = capture()
    for data in packets:
        seen.packet(memoryview(data))
    counts: dict[Any, dict[str, int]] = seen.counts
    return counts


@pytest.mark.parametrize("size", [1, 7, 1448, 60_000])
def test_bytes_belong_to_the_rounds_that_their_frames_say(size: int) -> None:
    parts = [encoded(m) for m in (Heartbeat(), uplink(0, 300), uplink(1, 70_000), uplink(2, 0))]
    counts = counted(sent(b"".join(data for data, _ in parts), size))
    for key, (data, body) in zip([None, 0, 1, 2], parts, strict=True):
        assert (counts[key, "up"]["payload"], counts[key, "up"]["framing"]) == (body, len(data) - body)
    # Headers of Ethernet, IP and TCP have 14, 20 and 20 bytes a packet; the first packet has no payload.
    packets = sum(row["packets"] for row in counts.values())
    assert sum(row["headers"] for row in counts.values()) == 54 * packets
    assert packets == 1 + -(-sum(len(data) for data, _ in parts) // size)


def test_packets_out_of_order_and_sent_again() -> None:
    data, body = encoded(uplink(5, 20_000))
    first, *rest = sent(data, 1000)
    again = random.Random(0).choices(rest, k=7)
    mixed = rest + again
    random.Random(1).shuffle(mixed)
    counts = counted([first, *mixed])
    assert (counts[5, "up"]["payload"], counts[5, "up"]["framing"]) == (body, len(data) - body)
    retransmitted = sum(row["retransmitted"] for row in counts.values())
    assert retransmitted == sum(len(packet) - 54 for packet in again)


def test_both_ways_and_strangers() -> None:
    data, body = encoded(Downlink(0, 3, "go on", bytes(16), (np.zeros(50, np.uint8),)))
    stranger = packet(("10.77.0.9", 1), ("10.77.0.8", 2), 5, b"whatever")
    other_protocol = bytes(12) + b"\x08\x06" + bytes(30)
    opened = packet(SERVER, WORKER, 8, b"", 0x12)
    counts = counted([opened, stranger, other_protocol, packet(SERVER, WORKER, 9, data)])
    assert counts[3, "down"]["payload"] == body
    assert {direction for _, direction in counts} == {"down"}
