from __future__ import annotations

import math
from typing import Any, cast

from asyncdmtl.server.lateness import KEPT_ROUNDS, MOST_LAG, Lateness
from asyncdmtl.server.records import LateRecord


class Worker:
    """The name of a member, and whether it is gone."""

    gone = False

    def __init__(self, name: str) -> None:
        self.name = name


def begun(*members: Worker, number: int = 5) -> Lateness:
    lateness = Lateness()

    class Assigned:
        pass

    assignment = Assigned()
    cast(Any, assignment).members = members
    lateness.begin(cast(Any, assignment), number, 100.0)
    return lateness


def test_a_member_that_lags_too_far_is_sent_no_more_rows_until_it_has_a_state() -> None:
    quick, slow = cast(Any, Worker("quick")), cast(Any, Worker("slow"))
    lateness = begun(quick, slow)
    lateness.hear(slow, 5, 100.0)
    for number in range(5, 6 + MOST_LAG + 1):
        assert lateness.is_sent(slow)
        lateness.hear(quick, number, 100.0)
        lateness.withhold([quick, slow], number)
    assert lateness.is_sent(quick)
    assert not lateness.is_sent(slow)
    assert lateness.waiting == []
    assert lateness.quiet_since(slow) == 100.0
    # It has made all rounds that it was sent, and has sent its upload for the next one.
    lateness.hear(slow, 6 + MOST_LAG, 107.0)
    assert lateness.waiting == [slow]
    assert lateness.quiet_since(slow) == math.inf
    lateness.hand_over(slow, 30, 108.0)
    assert lateness.is_sent(slow)
    assert (lateness.handed_over["slow"], lateness.quiet_since(slow)) == (1, 108.0)


def test_a_member_that_has_sent_nothing_under_the_plan_may_not_have_read_it() -> None:
    quick, slow = cast(Any, Worker("quick")), cast(Any, Worker("slow"))
    lateness = begun(quick, slow)
    lateness.hear(quick, 5, 100.0)
    lateness.withhold([quick, slow], 5)
    assert [lateness.is_sent(member) for member in (quick, slow)] == [True, False]
    lateness.hear(slow, 5, 107.0)
    assert lateness.waiting == [slow]
    lateness.hand_over(slow, 9, 108.0)
    lateness.withhold([quick, slow], 9)
    assert lateness.is_sent(slow)


def test_the_lateness_of_workers_is_recorded_in_the_order_of_their_names() -> None:
    lateness = begun()
    lateness.late_rounds.update({"w10": 2, "w2": 1})
    lateness.ignored_bytes["w2"] = 40
    assert list(lateness.records().items()) == [("w2", LateRecord(1, 40, 0)), ("w10", LateRecord(2, 0, 0))]


def test_members_that_lack_rounds_are_left_behind_once() -> None:
    slow = cast(Any, Worker("slow"))
    lateness = begun(slow)
    lateness.withhold([slow], 5 + MOST_LAG)
    assert lateness.leave_behind() == [slow]
    assert lateness.leave_behind() == []


def test_the_uploads_of_the_last_rounds_are_kept() -> None:
    lateness = begun()
    for number in range(KEPT_ROUNDS + 2):
        lateness.keep(number, [None])
    assert lateness.past(1) is None
    assert lateness.past(2) == [None]
