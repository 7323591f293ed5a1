from __future__ import annotations

import logging

import pytest

from asyncdmtl.net import failed_proofs
from asyncdmtl.net.failed_proofs import FORGET_SECONDS, FREE_FAILURES, LONGEST_DELAY, FailedProofs


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def delays(failed: FailedProofs, times: int, host: str = "10.0.0.1") -> list[float]:
    return [failed.failed(host) for _ in range(times)]


def test_answers_are_delayed_ever_longer_up_to_a_limit(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    failed, told = FailedProofs(clock), list[tuple[str, str, float]]()
    failed.on_delay = lambda *facts: told.append(facts)
    assert delays(failed, FREE_FAILURES - 1) == [0.0] * (FREE_FAILURES - 1)
    assert not caplog.records
    assert delays(failed, 8) == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, LONGEST_DELAY, LONGEST_DELAY])
    assert delays(failed, 1000)[-1] == LONGEST_DELAY
    assert told[0] == ("address", "10.0.0.1", 0.1)
    first = caplog.records[0]
    assert first.levelno == logging.WARNING
    assert (
        first.message
        == "address 10.0.0.1: 5 failed proofs of identity; the answer to this one is delayed by 0.1 s"
    )


def test_other_sites_are_not_delayed(clock: Clock) -> None:
    failed = FailedProofs(clock)
    delays(failed, 20)
    assert delays(failed, 1, "10.0.0.2") == [0.0]


def test_success_and_time_make_failures_forgotten(clock: Clock) -> None:
    failed = FailedProofs(clock)
    delays(failed, 20)
    failed.succeeded("10.0.0.1")
    failed.succeeded("10.0.0.9")
    assert delays(failed, FREE_FAILURES - 1)[-1] == 0.0
    clock.now += FORGET_SECONDS + 1
    assert delays(failed, FREE_FAILURES - 1)[-1] == 0.0


def test_memory_is_bounded(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failed_proofs, "MAX_SITES", 10)
    failed = FailedProofs(clock)
    for number in range(100):
        failed.failed(f"10.0.0.{number}")
    assert len(failed._records) == 10
