from __future__ import annotations

from asyncdmtl.server.pace import FREE_PLANS, LONGEST_WAIT, SECONDS_PER_SECOND, Pace


class Clock:
    """A clock that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def plan(pace: Pace, clock: Clock, seconds: float) -> None:
    """Make a plan in so many seconds."""
    pace.begin_plan()
    clock.now += seconds
    pace.note_plan()


def test_newcomers_wait_after_many_plans_in_quick_succession() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.note_round(0.0)
    for _ in range(1 + int(FREE_PLANS)):
        assert pace.due() == clock.now
        plan(pace, clock, 1.0)
    # Meanwhile the count has fallen by less than one.
    passed = FREE_PLANS * 1.0
    due = pace.due()
    assert abs(due - (clock.now + SECONDS_PER_SECOND - passed)) < 1e-9
    # One that joins meanwhile takes part at the same time.
    clock.now += 1.0
    assert abs(pace.due() - due) < 1e-9
    clock.now += SECONDS_PER_SECOND
    assert pace.due() == clock.now


def test_a_wait_has_an_end() -> None:
    clock = Clock()
    pace = Pace(clock)
    plan(pace, clock, 100.0)
    for _ in range(1000):
        pace.note_plan()
        pace.plan_seconds = 100.0
    assert pace.due() == clock.now + LONGEST_WAIT


def test_plans_take_at_most_a_tenth_of_the_time() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.note_round(0.1)
    spent = 0.0
    # A worker that joins as soon as it may, takes part in one round, and is lost.
    while clock.now < 1100.0:
        clock.now = max(clock.now, pace.due())
        for _ in range(2):
            plan(pace, clock, 0.2)
            clock.now += 0.1
            spent += 0.3
    assert spent / 1000.0 < 1.1 / SECONDS_PER_SECOND


def test_it_is_known_for_how_long_no_round_was_made() -> None:
    clock = Clock()
    pace = Pace(clock)
    plan(pace, clock, 1.0)
    clock.now += 5.0
    assert pace.stood_still == 5.0
    pace.note_round(5.0)
    assert pace.stood_still == 0.0
    # Waiting for workers is not the fault of those that are here.
    clock.now += 50.0
    pace.begin_plan()
    clock.now += 3.0
    assert pace.stood_still == 3.0
    pace.note_plan()
    assert (pace.stood_still, pace.plan_seconds) == (0.0, 3.0)
