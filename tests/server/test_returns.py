from __future__ import annotations

import pytest

from asyncdmtl.server.returns import FREE_RETURNS, LONGEST_DELAY, MAX_NAMES, REMEMBERED_SECONDS, Returns


class Clock:
    """A clock that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_each_further_return_is_delayed_longer_up_to_a_limit(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    returns = Returns(clock)
    delays = [returns.due("w0") - clock.now for _ in range(FREE_RETURNS + 9)]
    assert delays == [0.0] * FREE_RETURNS + [2.0, 6.0, 18.0, 54.0, 60.0, 60.0, 60.0, 60.0, 60.0]
    assert returns.due("w1") == clock.now
    assert "worker w0 came back 3 times lately" in caplog.text
    assert "it takes part again in 2 s" in caplog.text


def still(seconds: float, cost: float, *, cheap: float | None = None) -> float:
    """The share of so many seconds in which rounds stand still.

    A worker comes back whenever it may, and falls silent at once, by which rounds stand still for `cost`
    seconds; at every second time for `cheap` seconds, if they are given.
    """
    clock = Clock()
    returns, lost, times = Returns(clock), 0.0, 0
    while clock.now < 100.0 + seconds:
        each = cost if cheap is None or times % 2 == 0 else cheap
        clock.now, lost, times = clock.now + each, lost + each, times + 1
        returns.lost("w0", each)
        clock.now = returns.due("w0")
    return lost / seconds


def test_a_worker_that_falls_silent_at_each_return_costs_a_tenth_of_the_time() -> None:
    # By the default limit of silence, 10 s, it costs three times as much before it is delayed.
    assert still(300.0, 10.0) <= 0.2
    assert still(600.0, 10.0) <= 0.15
    assert still(36_000.0, 10.0) <= 0.101
    assert still(36_000.0, 60.0) <= 0.11
    assert still(36_000.0, 10.0, cheap=0.1) <= 0.101
    assert still(36_000.0, 60.0, cheap=10.0) <= 0.11


def test_a_worker_that_is_lost_now_and_then_takes_part_again_at_once() -> None:
    clock = Clock()
    returns = Returns(clock)
    for _ in range(100):
        returns.lost("w0", 10.0)
        assert returns.due("w0") == clock.now
        clock.now += REMEMBERED_SECONDS / FREE_RETURNS + 1.0


def test_returns_are_forgotten() -> None:
    clock = Clock()
    returns = Returns(clock)
    for _ in range(100):
        returns.due("w0")
    assert returns.due("w0") == clock.now + LONGEST_DELAY
    clock.now += REMEMBERED_SECONDS + 1.0
    assert returns.due("w0") == clock.now


def test_the_names_that_are_remembered_are_bounded() -> None:
    returns = Returns(Clock())
    for _ in range(FREE_RETURNS + 1):
        returns.due("w0")
    for number in range(MAX_NAMES):
        returns.due(f"other{number}")
    assert returns.due("w0") == Clock.now
