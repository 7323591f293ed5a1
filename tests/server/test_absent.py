from __future__ import annotations

import math
from dataclasses import replace

from support.members import make_member

from asyncdmtl.server.absent import LINGER, Absent
from asyncdmtl.server.member import Member

SILENCE = 20.0


def relay(name: str, *behind: str) -> Member:
    return replace(make_member(name), behind=behind, current=True)


def until(absent: Absent, *members: Member) -> float:
    return absent.until(members, SILENCE)


async def test_nobody_is_waited_for_unless_somebody_was_lost() -> None:
    assert until(Absent()) == -math.inf


async def test_a_worker_has_a_moment_and_as_long_as_it_prepares_its_rows() -> None:
    absent, lost = Absent(), make_member("a")
    absent.note(lost, 100.0)
    assert until(absent) == 100.0 + LINGER
    back = make_member("a")
    assert until(absent, back) == 100.0 + SILENCE
    assert until(absent, replace(back, current=True)) == -math.inf
    # It is not missed again before it is lost again.
    assert until(absent) == -math.inf
    absent.note(back, 200.0)
    assert until(absent) == 200.0 + LINGER


async def test_workers_behind_a_lost_relay_come_back_each_on_its_own() -> None:
    absent = Absent()
    absent.note(relay("north", "a", "b"), 100.0)
    # Their relay may be frozen, and let them connect.
    assert until(absent) == 100.0 + 2 * SILENCE
    # One comes behind another relay, the other one to the server.
    assert until(absent, relay("south", "c", "a")) == 100.0 + 2 * SILENCE
    direct = replace(make_member("b"), current=True)
    assert until(absent, relay("south", "c", "a"), direct) == -math.inf


async def test_who_may_not_come_back_is_not_waited_for() -> None:
    absent = Absent()
    absent.note(make_member("a"), 100.0)
    absent.forget(make_member("a"))
    absent.forget(make_member("never"))
    assert until(absent) == -math.inf
