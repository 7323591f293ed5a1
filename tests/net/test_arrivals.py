from __future__ import annotations

from asyncdmtl.net.arrivals import LEAST_BYTES, Arrivals


def test_only_the_time_within_messages_counts() -> None:
    seen = Arrivals()
    for start in (0.0, 100.0):
        seen.note(1000, start, complete=False)
        seen.note(LEAST_BYTES, start + 1.0, complete=False)
        seen.note(LEAST_BYTES, start + 2.0, complete=True)
        seen.note(500, start + 50.0, complete=True)
    assert seen.rate() == 8.0 * LEAST_BYTES
    assert seen.rate() == 0.0


def test_few_bytes_are_kept_until_more_have_come() -> None:
    seen = Arrivals()
    assert seen.rate() == 0.0
    seen.note(1, 0.0, complete=False)
    seen.note(LEAST_BYTES - 1, 1.0, complete=True)
    assert seen.rate() == 0.0
    seen.note(1, 5.0, complete=False)
    seen.note(LEAST_BYTES + 1, 6.0, complete=True)
    assert seen.rate() == 8.0 * LEAST_BYTES


def test_bytes_that_arrive_at_once_tell_no_speed() -> None:
    seen = Arrivals()
    seen.note(1, 3.0, complete=False)
    seen.note(2 * LEAST_BYTES, 3.0, complete=True)
    assert seen.rate() == 0.0
