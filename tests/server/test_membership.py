from __future__ import annotations

import asyncio

import pytest
from support.members import make_member
from support.problems import make_partitions

from asyncdmtl.errors import LinkError
from asyncdmtl.net.connection import Connection
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.server import membership as memberships
from asyncdmtl.server import returns
from asyncdmtl.server.member import Member
from asyncdmtl.server.membership import Membership


async def test_it_is_told_why_nobody_holds_partitions() -> None:
    membership = Membership()
    declared = tuple(partition.declaration() for partition in make_partitions(30, "squared"))
    for name, ready, lost in (
        ("early", False, None),
        ("odd", True, None),
        ("gone", True, LinkError("reset", peer="w")),
    ):
        made = Connection("server", Ledger(), 1.0)
        membership.members[name] = Member(name, made, declared, ready=ready, lost=lost)
    names = [part.id for part in declared]
    told = str(membership.no_holder(names[:2]))
    assert told.startswith(f"nobody is left who holds the partitions {names[:2]}: worker 'early' held")
    assert f"worker 'early' held {names[:2]} (its rows are not prepared yet)" in told
    assert f"worker 'odd' held {names[:2]} (its updates of them differ from those of other holders)" in told
    assert f"worker 'gone' held {names[:2]} (reset" in told
    assert f"{names[:20]} and 10 more: worker" in str(membership.no_holder(names))


async def test_a_worker_that_comes_back_again_and_again_is_held_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(returns, "FREE_RETURNS", 1)
    membership = Membership()
    membership.add(make_member("w0", ready=True, current=True))
    for number in range(3):
        membership.add(make_member("w1", ready=True))
        # The first time it joins, and once more it comes back at once.
        assert membership.newcomers() == (number < 2)
        assert [m.name for m in membership.present()] == ["w0", "w1"][: 2 if number < 2 else 1]
    assert membership.newcomers(held=True)
    assert [member.name for member in membership.present(held=True)] == ["w0", "w1"]
    membership.members["w1"].held_until = asyncio.get_running_loop().time()
    assert membership.newcomers()


async def test_a_worker_that_stops_all_rounds_whenever_it_comes_back_is_held_for_longer() -> None:
    membership = Membership()
    membership.add(make_member("w1", ready=True))
    for _ in range(returns.FREE_RETURNS):
        membership.returns.lost("w1", 10.0)
        membership.add(make_member("w1", ready=True))
        assert membership.newcomers()
    membership.returns.lost("w1", 10.0)
    membership.add(make_member("w1", ready=True))
    assert membership.members["w1"].held_until > asyncio.get_running_loop().time() + 90.0


async def test_workers_that_left_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memberships, "MAX_LEFT", 2)
    monkeypatch.setattr(memberships, "MAX_MEMBERS", 1)
    membership = Membership()
    for number in range(4):
        membership.add(make_member(f"w{number}", lost=LinkError("reset", peer="w")))
    # One that is lost while a plan includes it is still to be told so.
    membership.add(make_member("planned", current=True, lost=LinkError("reset", peer="w")))
    assert not membership.full
    membership.add(make_member("here"))
    assert list(membership.members) == ["w2", "w3", "planned", "here"]
    assert membership.full


async def test_newcomers_wait_after_many_plans() -> None:
    membership = Membership()
    membership.pace.note_round(60.0)
    for number in range(20):
        membership.add(make_member(f"w{number}", ready=True))
        membership.pace.note_plan()
    here = [member.name for member in membership.present()]
    assert "w0" in here
    assert "w19" not in here
    assert len(membership.present(held=True)) == 20
