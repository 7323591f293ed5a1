from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support.broadcasts import KEY, Round, datagrams

from asyncdmtl.multicast.datagrams import Stream
from asyncdmtl.multicast.receiving import DatagramCounts
from asyncdmtl.plan.placement import Placement
from asyncdmtl.worker.multicast_receiver import MulticastReceiver

PLACEMENT = Placement.cyclic(4, 4, 2)


class Receiver:
    """A socket of a group, to which a test delivers datagrams."""

    def __init__(self) -> None:
        self.counts = DatagramCounts()
        self.waiting: list[bytes] = []
        self.listeners: dict[bytes, Callable[[memoryview], object]] = {}

    def listen(self, name: bytes, take: Callable[[memoryview], object]) -> None:
        self.listeners[name] = take

    def forget(self, name: bytes) -> None:
        del self.listeners[name]

    def read(self, most: int) -> None:
        while self.waiting:
            datagram = memoryview(self.waiting.pop(0))
            for take in list(self.listeners.values()):
                take(datagram)


@pytest.fixture
def made() -> tuple[Round, Receiver, MulticastReceiver]:
    receiver: Any = Receiver()
    return Round(PLACEMENT, 600, 128, 64), receiver, MulticastReceiver(receiver)


def sent(round_: Round) -> list[bytes]:
    """All datagrams of a round, range by range."""
    broadcast = round_.broadcast()
    return [datagram for _ in range(round_.layout.ranges) for datagram in datagrams(broadcast.next_range())]


def test_a_round_is_received(made: tuple[Round, Receiver, MulticastReceiver]) -> None:
    round_, receiver, multicast = made
    progress: list[int] = []
    begun = multicast.begin(round_.stream(), round_.layout, round_.solvers[1], lambda: progress.append(1))
    assert multicast.round is begun
    receiver.waiting = sent(round_)
    lacks, seen = multicast.lacks(0)
    assert not any(lacks)
    assert seen > 0
    round_.check(1, begun)
    # Progress is reported when a range begins and when it is complete, not for every datagram.
    assert round_.layout.ranges <= len(progress) <= 2 * round_.layout.ranges


def test_what_did_not_arrive_is_told(made: tuple[Round, Receiver, MulticastReceiver]) -> None:
    round_, _, multicast = made
    multicast.begin(round_.stream(), round_.layout, round_.solvers[0], lambda: None)
    lacks, seen = multicast.lacks(0)
    assert any(lacks)
    assert seen == 0


def test_a_new_round_ends_the_one_before(made: tuple[Round, Receiver, MulticastReceiver]) -> None:
    round_, receiver, multicast = made
    first = multicast.begin(round_.stream(), round_.layout, round_.solvers[0], lambda: None)
    following = Stream.of_round(KEY, 0, round_.plan.digest, 1)
    second = multicast.begin(following, round_.layout, round_.solvers[0], lambda: None)
    assert list(receiver.listeners) == [second.stream.name] != [first.stream.name]
    assert multicast.round is second
    for _ in range(2):
        multicast.end()
    assert (str(multicast.round), receiver.listeners) == ("None", {})
