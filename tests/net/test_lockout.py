from __future__ import annotations

import logging

import pytest

from asyncdmtl.net import lockout
from asyncdmtl.net.lockout import FORGET, LONGEST_WAIT, PATIENCE, Lockout


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def lock_out(
    door: Lockout, name: str | None = "w0", address: str = "10.0.0.1", times: int = PATIENCE
) -> None:
    for _ in range(times):
        door.failed(name, address)


def test_who_fails_often_waits_ever_longer_and_gets_in_again(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    door = Lockout(clock)
    lock_out(door, times=PATIENCE - 1)
    assert door.enter("10.0.0.1")
    assert door.wait("w0", "10.0.0.2") == 0
    assert not caplog.records
    waits = []
    for _ in range(8):
        door.failed("w0", "10.0.0.1")
        waits.append(door.wait("w0", "10.0.0.2"))
        assert not door.enter("10.0.0.1")
        clock.now += waits[-1] - 0.001
        assert not door.enter("10.0.0.1")
        clock.now += 0.002
        assert door.enter("10.0.0.1")
        assert door.wait("w0", "10.0.0.2") == 0
    assert waits == pytest.approx([1, 2, 4, 8, 16, LONGEST_WAIT, LONGEST_WAIT, LONGEST_WAIT])
    lines = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(lines) == 16
    assert lines[0] == "address 10.0.0.1 is locked out for 1 s: 5 failed attempts to prove an identity"
    assert lines[1].startswith("name w0 is locked out")


def test_others_are_not_locked_out(clock: Clock) -> None:
    door = Lockout(clock)
    lock_out(door)
    assert door.enter("10.0.0.2")
    assert door.wait("w1", "10.0.0.1") == 0


def test_a_worker_is_not_kept_out_by_who_fails_in_its_name_elsewhere(clock: Clock) -> None:
    door = Lockout(clock)
    door.succeeded("w0", "10.0.0.2")
    lock_out(door)
    assert door.wait("w0", "10.0.0.2") == 0
    assert door.enter("10.0.0.2")
    assert door.wait("w0", "10.0.0.3") > 0


def test_success_and_time_make_failures_forgotten(clock: Clock) -> None:
    door = Lockout(clock)
    lock_out(door, times=PATIENCE - 1)
    door.succeeded("w0", "10.0.0.1")
    lock_out(door, times=PATIENCE - 1)
    assert door.enter("10.0.0.1")
    clock.now += FORGET + 1
    lock_out(door, times=PATIENCE - 1)
    assert door.enter("10.0.0.1")


def test_who_failed_before_it_said_its_name_counts_by_address(clock: Clock) -> None:
    door = Lockout(clock)
    lock_out(door, name=None)
    assert not door.enter("10.0.0.1")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("/run/socket", "/run/other", False),
    ],
)
def test_an_address_is_what_one_site_has(clock: Clock, one: str, other: str, same: bool) -> None:
    door = Lockout(clock)
    lock_out(door, address=one)
    assert door.enter(other) is not same


def test_strangers_are_few(clock: Clock) -> None:
    door = Lockout(clock, most_strangers=3, most_from_one=2)
    assert [door.enter("a") for _ in range(3)] == [True, True, False]
    assert [door.enter("b") for _ in range(2)] == [True, False]
    door.leave("a")
    assert not door.enter("a") or not door.enter("b")


def test_memory_is_bounded(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lockout, "MOST_REMEMBERED", 10)
    door = Lockout(clock)
    for number in range(100):
        lock_out(door, name=f"n{number}", address=f"10.0.0.{number}")
        door.succeeded(f"m{number}", f"10.0.1.{number}")
        door.enter(f"10.0.2.{number}")
        door.leave(f"10.0.2.{number}")
    assert len(door._records) == len(door._known) == 10
    assert not door._strangers
    assert not door.enter("10.0.0.99")
