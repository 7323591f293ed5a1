from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    assert seen.rate() == pytest.approx(8.0 * LEAST_BYTES, rel=1e-4)


def test_neither_waits_of_the_sender_nor_buffers_change_the_speed() -> None:
    seen, now = Arrivals(), 0.0
    seen.note(1, now, complete=False)
    for i in range(400):
        # A thousand bytes in a millisecond, but for a wait of a second and a buffer that is emptied at once.
        now += 1.0 if i == 40 else 1e-6 if 100 <= i < 180 else 1e-3
        seen.note(1000, now, complete=False)
    seen.note(1000, now + 1e-3, complete=True)
    assert seen.rate() == pytest.approx(8e6, rel=1e-9)


@given(st.lists(st.tuples(st.integers(1, 1 << 20), st.floats(1e-7, 10.0)), min_size=1))
def test_the_speed_lies_among_those_of_the_arrivals(steps: list[tuple[int, float]]) -> None:
    seen, now, speeds = Arrivals(), 0.0, []
    seen.note(1, now, complete=False)
    for count, seconds in [*steps, (LEAST_BYTES, 0.5)]:
        before, now = now, now + seconds
        speeds.append(8.0 * count / (now - before))
        seen.note(count, now, complete=False)
    assert (1 - 1e-9) * min(speeds) <= seen.rate() <= (1 + 1e-9) * max(speeds)


def test_bytes_that_arrive_at_once_tell_no_speed() -> None:
    seen = Arrivals()
    seen.note(1, 3.0, complete=False)
    seen.note(2 * LEAST_BYTES, 3.0, complete=True)
    assert seen.rate() == 0.0
