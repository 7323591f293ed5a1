from __future__ import annotations

import math

from asyncdmtl.worker.window import FIRST_WINDOW, QUEUED_SECONDS, UplinkWindow


def window_after(rounds: int, trip: float, apart: float) -> UplinkWindow:
    """A window after some rounds of 32 ranges on a network that takes one range every `apart` seconds."""
    window = UplinkWindow()
    for _ in range(rounds):
        window.begin()
        sent: list[float] = []
        received: list[float] = []
        for i in range(32):
            sent.append(received[i - window.ranges] if i >= window.ranges else 0.0)
            received.append(max(sent[i] + trip, received[-1] + apart if received else 0.0))
            window.sent(sent[-1])
        for now in received:
            window.received(now)
    window.begin()
    return window


def test_a_long_way_is_kept_busy() -> None:
    # One range every 5 ms and a round trip of 200 ms: 40 ranges are on their way at once.
    assert FIRST_WINDOW < 40 < window_after(30, 0.2, 0.005).ranges < 60


def test_a_slow_link_gets_no_queue() -> None:
    # A range takes 80 ms to pass: no more than two or three need to be on their way.
    assert window_after(10, 0.09, 0.08).ranges == 1 + math.ceil((0.09 + QUEUED_SECONDS) / 0.08)


def test_a_way_that_becomes_longer_is_noticed() -> None:
    window = window_after(5, 0.01, 0.01)
    before = window.ranges
    for _ in range(40):
        for i in range(8):
            window.sent(0.01 * i)
            window.received(0.01 * i + 0.3)
        window.begin()
    assert before < 8
    assert window.ranges == 1 + math.ceil((0.3 + QUEUED_SECONDS) / 0.01)


def test_a_round_without_two_round_trips_changes_nothing() -> None:
    window = UplinkWindow()
    window.begin()
    assert window.ranges == FIRST_WINDOW
    window.sent(1.0)
    window.received(2.0)
    window.begin()
    assert window.ranges == FIRST_WINDOW
    for now in (3.0, 4.0, 5.0):  # of a round whose ranges were sent all at once
        window.received(now)
    window.begin()
    assert window.ranges == FIRST_WINDOW


def test_ranges_that_come_at_one_moment_change_nothing() -> None:
    window = UplinkWindow()
    for now in (0.0, 0.1):
        window.sent(now)
        window.received(1.0)
    window.begin()
    assert window.ranges == FIRST_WINDOW
