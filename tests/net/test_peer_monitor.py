from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from asyncdmtl.net.peer_monitor import (
    FEWEST_SECONDS,
    HEARTBEAT_SECONDS,
    SPARE_HEARTBEATS,
    HeartbeatCount,
    PeerMonitor,
)


class Clock:
    """The event loop's clock and timers, moved on by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, Callable[[], None], list[bool]]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, call: Callable[[], None]) -> Any:
        cancelled: list[bool] = []
        self.timers.append((self.now + delay, call, cancelled))

        class Handle:
            def cancel(self) -> None:
                cancelled.append(True)

        return Handle()

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and call the timers that are due."""
        end = self.now + seconds
        while due := [timer for timer in self.timers if not timer[2] and timer[0] <= end]:
            first = min(due, key=lambda timer: timer[0])
            self.timers.remove(first)
            self.now = first[0]
            first[1]()
        self.now = end


class Connection:
    """A connection that notes what its monitor does."""

    def __init__(self, clock: Clock, silence: float) -> None:
        self.clock = clock
        self.beats: list[float] = []
        self.given_up: list[tuple[float, bool]] = []
        self.unsent = 0
        self.monitor = PeerMonitor(self, lambda: self.unsent, silence)

    def beat(self) -> None:
        self.beats.append(self.clock.now - 100.0)

    def peer_is_silent(self, *, heard: bool) -> None:
        self.given_up.append((self.clock.now - 100.0, heard))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: made)
    return made


def test_heartbeats_come_at_regular_times(clock: Clock) -> None:
    connection = Connection(clock, 60.0)
    connection.monitor.start()
    clock.pass_time(3 * HEARTBEAT_SECONDS)
    assert connection.beats == [0.0, 2.0, 4.0, 6.0]
    connection.monitor.stop()
    clock.pass_time(100.0)
    assert len(connection.beats) == 4


def test_heartbeats_are_as_frequent_as_the_silence_of_either_end_needs(clock: Clock) -> None:
    connection = Connection(clock, 4.0)
    connection.monitor.start()
    clock.pass_time(1.0)
    assert connection.beats == [0.0, 1.0]
    connection.monitor.beat_within(2.0)
    connection.monitor.heard()
    clock.pass_time(1.0)
    assert connection.beats == [0.0, 1.0, 1.5, 2.0]


def test_a_peer_cannot_ask_for_heartbeats_without_end(clock: Clock) -> None:
    connection = Connection(clock, 60.0)
    connection.monitor.start()
    connection.monitor.beat_within(1e-9)
    clock.pass_time(1.0)
    assert len(connection.beats) <= 2 + 1.0 / FEWEST_SECONDS


def test_a_flood_of_heartbeats_is_told_from_those_that_came_late(clock: Clock) -> None:
    count = HeartbeatCount(clock.time)
    assert not any(count.is_too_large() for _ in range(SPARE_HEARTBEATS))
    assert count.is_too_large()
    clock.pass_time(10.0)
    assert not any(count.is_too_large() for _ in range(int(10.0 / FEWEST_SECONDS) - 1))
    assert count.is_too_large()


def test_a_peer_of_which_nothing_is_heard_is_given_up(clock: Clock) -> None:
    connection = Connection(clock, 4.0)
    connection.monitor.start()
    clock.pass_time(3.0)
    connection.monitor.heard()
    recently = [connection.monitor.recently_heard]
    clock.pass_time(3.9)
    assert not connection.given_up
    assert [*recently, connection.monitor.recently_heard] == [True, False]
    clock.pass_time(2.0)
    ((when, heard),) = connection.given_up
    assert 7.0 <= when <= 8.1
    assert not heard


def test_only_progress_counts_as_heard(clock: Clock) -> None:
    connection = Connection(clock, 4.0)
    connection.monitor.start()
    connection.monitor.heard(1)
    for _ in range(5):
        clock.pass_time(1.0)
        connection.monitor.heard(1)
    assert connection.given_up
    connection = Connection(clock, 4.0)
    connection.monitor.start()
    for progress in range(10):
        clock.pass_time(1.0)
        connection.monitor.heard(progress + 1)
    assert not connection.given_up


def test_a_peer_that_takes_nothing_is_given_up(clock: Clock) -> None:
    connection = Connection(clock, 4.0)
    connection.monitor.start()
    connection.unsent = 1000
    for _ in range(8):
        clock.pass_time(1.0)
        connection.monitor.heard()
    assert [heard for _, heard in connection.given_up] == [True]
    assert connection.beats == [0.0]


def test_a_peer_that_takes_some_of_it_is_not_given_up(clock: Clock) -> None:
    connection = Connection(clock, 4.0)
    connection.monitor.start()
    connection.unsent = 1000
    for _ in range(20):
        clock.pass_time(1.0)
        connection.unsent -= 10
        connection.monitor.heard()
    assert not connection.given_up
    assert len(connection.beats) == 1


def test_a_patient_end_waits_until_its_peer_takes_something(clock: Clock) -> None:
    connection = Connection(clock, 10.0)
    connection.monitor.patient = True
    connection.monitor.start()
    connection.unsent = 100
    for _ in range(10):
        connection.monitor.heard()
        clock.pass_time(5.0)
    assert connection.given_up == []
    clock.pass_time(10.0)
    assert [heard for _, heard in connection.given_up] == [False]
