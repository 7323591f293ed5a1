from __future__ import annotations

import pytest

from asyncdmtl.errors import UsageError
from asyncdmtl.multicast.rate import BURST_BYTES, JUDGED_DATAGRAMS, LOWEST_SHARE, RateControl


def test_the_rate_is_kept() -> None:
    control, now, sent = RateControl(1e6), 5.0, 0
    while sent < 4_000_000:
        now += control.wait(now, 20_000)
        sent += 20_000
    assert 4 - (BURST_BYTES + 20_001) / 1e6 <= now - 5.0 <= 4.0


def test_a_pause_is_not_made_up_for_by_more_than_a_burst() -> None:
    control = RateControl(1e6)
    control.wait(0.0, 1000)
    waits = [control.wait(100.0, 10_000) for _ in range(20)]
    at_once = waits.index(next(wait for wait in waits if wait))
    assert at_once * 10_000 <= BURST_BYTES + 10_000


def report(control: RateControl, lost: float, worker: str = "w0") -> None:
    control.report_loss(worker, JUDGED_DATAGRAMS, round(lost * JUDGED_DATAGRAMS))


def test_loss_lowers_the_rate_and_its_end_raises_it() -> None:
    control = RateControl(1e6)
    report(control, 0.4)
    assert control.rate == pytest.approx(0.6e6)
    assert control.lost == 0.4
    report(control, 0.1)
    assert control.rate == pytest.approx(0.54e6)
    for _ in range(9):
        report(control, 0.0)
    assert (control.rate, control.lost, control.usual) == (1e6, 0.0, 0.0)


def test_loss_that_a_lower_rate_does_not_cure_is_usual() -> None:
    control = RateControl(1e6)
    for _ in range(20):
        report(control, 0.2)
    assert control.rate == 1e6
    assert control.usual == pytest.approx(0.2)


def test_the_rate_has_a_floor() -> None:
    control = RateControl(1e6)
    lost = 0.99
    while lost > 0.06:
        report(control, lost)
        lost *= 0.7
    assert control.rate >= 1e6 * LOWEST_SHARE


def test_the_largest_loss_counts_and_few_datagrams_do_not() -> None:
    control = RateControl(1e6)
    control.report_loss("w1", JUDGED_DATAGRAMS - 1, JUDGED_DATAGRAMS // 2)
    assert control.rate == 1e6
    report(control, 0.0)
    assert control.lost == pytest.approx(0.5, rel=0.01)
    assert control.rate < 0.6e6


def test_a_rate_is_positive() -> None:
    with pytest.raises(UsageError, match="limit must be more than 0"):
        RateControl(0.0)
