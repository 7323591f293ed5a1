from __future__ import annotations

import math

import pytest

from asyncdmtl.errors import UsageError
from asyncdmtl.multicast.rate import BURST, FIRST_LEAD, LOWEST, SLACK, WINDOW, Lead, Pace


def test_the_rate_is_kept() -> None:
    pace, now, sent = Pace(1e6), 5.0, 0
    while sent < 4_000_000:
        now += pace.wait(now, 20_000)
        sent += 20_000
    assert 4 - (BURST + 20_001) / 1e6 <= now - 5.0 <= 4.0


def test_a_pause_is_not_made_up_for_by_more_than_a_burst() -> None:
    pace = Pace(1e6)
    pace.wait(0.0, 1000)
    waits = [pace.wait(100.0, 10_000) for _ in range(20)]
    at_once = waits.index(next(wait for wait in waits if wait))
    assert at_once * 10_000 <= BURST + 10_000


def told(pace: Pace, lost: float, worker: str = "w0") -> None:
    pace.heard(worker, WINDOW, round(lost * WINDOW))


def test_loss_lowers_the_rate_and_its_end_raises_it() -> None:
    pace = Pace(1e6)
    told(pace, 0.4)
    assert pace.rate == pytest.approx(0.6e6)
    assert pace.lost == 0.4
    told(pace, 0.1)
    assert pace.rate == pytest.approx(0.54e6)
    for _ in range(9):
        told(pace, 0.0)
    assert (pace.rate, pace.lost, pace.usual) == (1e6, 0.0, 0.0)


def test_loss_that_a_lower_rate_does_not_cure_is_usual() -> None:
    pace = Pace(1e6)
    for _ in range(20):
        told(pace, 0.2)
    assert pace.rate == 1e6
    assert pace.usual == pytest.approx(0.2)


def test_the_rate_has_a_floor() -> None:
    pace = Pace(1e6)
    lost = 0.99
    while lost > 0.06:
        told(pace, lost)
        lost *= 0.7
    assert pace.rate >= 1e6 * LOWEST


def test_who_lost_most_counts_and_few_datagrams_do_not() -> None:
    pace = Pace(1e6)
    pace.heard("w1", WINDOW - 1, WINDOW // 2)
    assert pace.rate == 1e6
    told(pace, 0.0)
    assert pace.lost == pytest.approx(0.5, rel=0.01)
    assert pace.rate < 0.6e6


def test_a_rate_is_positive() -> None:
    with pytest.raises(UsageError, match="limit must be more than 0"):
        Pace(0.0)


def lead_after(rounds: int, way: float, apart: float) -> Lead:
    """A lead that saw rounds of 32 ranges on a network that takes one every `apart` seconds."""
    lead = Lead()
    for _ in range(rounds):
        lead.begin()
        sent: list[float] = []
        came: list[float] = []
        for i in range(32):
            sent.append(came[i - lead.ranges] if i >= lead.ranges else 0.0)
            came.append(max(sent[i] + way, came[-1] + apart if came else 0.0))
            lead.sent(sent[-1])
        for now in came:
            lead.received(now)
    lead.begin()
    return lead


def test_a_lead_keeps_a_long_way_busy() -> None:
    # A range every 5 ms, and 200 ms there and back: 40 of them are on their way.
    assert FIRST_LEAD < 40 < lead_after(30, 0.2, 0.005).ranges < 60


def test_a_lead_fills_no_queue_on_a_slow_link() -> None:
    # A range takes 80 ms to pass: no more than two or three need to be on their way.
    assert lead_after(10, 0.09, 0.08).ranges == 1 + math.ceil((0.09 + SLACK) / 0.08)


def test_a_lead_that_saw_nothing_is_the_first() -> None:
    lead = Lead()
    lead.begin()
    assert lead.ranges == FIRST_LEAD
    lead.sent(1.0)
    lead.received(2.0)
    lead.begin()
    assert lead.ranges == FIRST_LEAD
    for now in (3.0, 4.0, 5.0):  # of a round that was not sent in step
        lead.received(now)
    lead.begin()
    assert lead.ranges == FIRST_LEAD
