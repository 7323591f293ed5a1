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
    assert "worker w0 came back 3 times lately: it takes part again in 2 s" in caplog.text


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
