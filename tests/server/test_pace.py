from __future__ import annotations

from asyncdmtl.server.pace import FREE_PLANS, LONGEST_WAIT, SECONDS_PER_SECOND, Pace


class Clock:
    """A clock that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_newcomers_wait_after_many_plans_in_quick_succession() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.round_seconds = 0.5
    for _ in range(int(FREE_PLANS)):
        assert pace.due() == clock.now
        pace.note_plan(0.5)
    assert pace.due() == clock.now
    pace.note_plan(0.5)
    due = pace.due()
    assert due == clock.now + SECONDS_PER_SECOND
    # One that joins meanwhile takes part at the same time.
    clock.now += 4.0
    assert abs(pace.due() - due) < 1e-9
    clock.now += SECONDS_PER_SECOND
    assert pace.due() == clock.now


def test_a_wait_has_an_end() -> None:
    clock = Clock()
    pace = Pace(clock)
    for _ in range(1000):
        pace.note_plan(1.0)
    assert pace.due() == clock.now + LONGEST_WAIT


def test_plans_take_at_most_a_tenth_of_the_time() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.round_seconds, spent = 0.1, 0.0
    # A worker that joins as soon as it may, takes part in one round, and is lost.
    while clock.now < 1100.0:
        clock.now = max(clock.now, pace.due())
        for _ in range(2):
            pace.note_plan(0.2)
            clock.now += 0.3
            spent += 0.3
    assert spent / 1000.0 < 1.1 / SECONDS_PER_SECOND
