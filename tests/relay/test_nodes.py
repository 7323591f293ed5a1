from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.members import make_member

from asyncdmtl.errors import AsyncDMTLError, IntegrityError, LinkError, PeerError, StateError
from asyncdmtl.relay.nodes import Nodes, SiteChangedError
from asyncdmtl.server.member import Member
from asyncdmtl.server.membership import Membership


def node(name: str) -> tuple[Member, list[AsyncDMTLError]]:
    """A node, and the errors that it was told."""
    member, told = make_member(name), list[AsyncDMTLError]()
    connection: Any = member.connection

    async def fail(error: AsyncDMTLError) -> None:
        told.append(error)

    connection.fail = fail
    return member, told


async def failing() -> int:
    raise LinkError("the cable is cut", peer="b")


async def answering(value: int) -> int:
    return value


async def test_answers_come_in_the_order_of_the_nodes() -> None:
    a, b = make_member("a"), make_member("b")
    nodes = Nodes(Membership(), [a, b], 1.0)
    assert await nodes.ask({a: answering(1), b: answering(2)}) == [1, 2]


async def test_a_node_that_fails_is_lost_and_the_site_changes(caplog: pytest.LogCaptureFixture) -> None:
    (a, _), (b, told) = node("a"), node("b")
    nodes = Nodes(Membership(), [a, b], 1.0)
    with pytest.raises(SiteChangedError):
        await nodes.ask({a: answering(1), b: failing()})
    assert isinstance(b.lost, LinkError)
    assert told == [b.lost]
    assert a.lost is None
    assert "worker b is lost: the cable is cut" in caplog.text
    with pytest.raises(SiteChangedError):
        nodes.check()


def wanting(*words: str) -> Nodes:
    members = [make_member(name, wants=word) for name, word in zip("abc", words, strict=False)]
    return Nodes(Membership(), members, 1.0)


async def test_a_relay_wants_what_its_nodes_do() -> None:
    assert wanting("none", "none").wants == "none"
    assert wanting("none", "own", "").wants == "own"
    assert wanting("all", "").wants == "all"
    assert wanting("", "none").wants == ""


async def test_nodes_that_cannot_have_what_they_want_are_lost_and_may_come_back() -> None:
    (a, _), (b, told) = node("a"), node("b")
    a.wants, b.wants = "own", "all"
    membership = Membership()
    nodes = Nodes(membership, [a, b], 1.0)
    with pytest.raises(SiteChangedError):
        await nodes.refuse_unserved("personal", "auto")
    assert (a.lost, told) == (None, [b.lost])
    assert "'b' cannot be all with --strategy personal" in str(b.lost)
    assert not membership.excluded
    await wanting("own", "own").refuse_unserved("personal", "gradient")


async def test_nodes_that_are_refused_for_good_may_not_come_back() -> None:
    (a, _), (b, told) = node("a"), node("b")
    membership = Membership()
    nodes = Nodes(membership, [a, b], 1.0)
    with pytest.raises(SiteChangedError):
        await nodes.refuse(LinkError("odd", peer="b"), ["b"], excluded=True)
    assert membership.excluded == {"b": "odd"}
    assert list(map(str, told)) == ["odd"]


async def test_work_goes_on_unless_a_node_joins_or_leaves() -> None:
    a, membership = make_member("a"), Membership()
    membership.add(a)
    a.ready = a.current = True
    nodes = Nodes(membership, [a], 1.0)
    assert await nodes.unchanged(answering(7)) == 7
    with pytest.raises(LinkError, match="the cable is cut"):
        await nodes.unchanged(failing())
    endless = asyncio.Event()
    waiting = asyncio.create_task(nodes.unchanged(endless.wait()))
    await asyncio.sleep(0)
    late = make_member("b")
    membership.add(late)
    # It still prepares its rows.
    await asyncio.sleep(0)
    assert not waiting.done()
    late.ready = True
    membership.note_change()
    with pytest.raises(SiteChangedError):
        await waiting


async def test_nodes_that_decoded_wrong_vectors_are_known() -> None:
    (a, _), (b, _), (c, _) = (node(name) for name in "abc")
    for member, code in ((a, 1), (b, IntegrityError.exit_code)):
        connection: Any = member.connection
        connection.failure = PeerError("ended", exit_code=code)
    assert Nodes(Membership(), [a, b, c], 1.0).misled == ["b"]


async def test_a_node_that_found_otherwise_than_most_whether_training_is_over_is_excluded() -> None:
    for over in ([True, True, False], [False, False, True]):
        membership, nodes = Membership(), [node(name)[0] for name in "abc"]
        for member in nodes:
            membership.add(member)
        with pytest.raises(SiteChangedError):
            await Nodes(membership, nodes, 1.0).agree_on_end(over)
        assert list(membership.excluded) == ["c"]


async def test_nodes_agree_that_training_is_over_or_nobody_knows() -> None:
    nodes = Nodes(Membership(), [node("a")[0], node("b")[0]], 1.0)
    await nodes.agree_on_end([True, True])
    with pytest.raises(StateError, match="training was over at a, and went on at b"):
        await nodes.agree_on_end([True, False])
