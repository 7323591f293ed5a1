from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from asyncdmtl.errors import (
    AsyncDMTLError,
    CorruptionError,
    DisagreementError,
    IntegrityError,
    LinkError,
    PeerError,
    RemoteProtocolError,
    WaitError,
)
from asyncdmtl.protocol.messages.registry import Finish, RowsLacking, Uplink
from asyncdmtl.server import losses
from asyncdmtl.server.peers import MOST_OFFENCES, OPTION, LackingError, Peers, ReplanError

LOST = LinkError("reset", peer="w0")
CORRUPTED = IntegrityError("corrupted", partitions=[], workers=["w0"])
LATE = WaitError("no uplink", seconds=1.0, option=OPTION)


class Connection:
    """A connection that records messages, or fails."""

    def __init__(self, lost: bool = False, error: BaseException | None = None) -> None:
        self.lost, self.error = lost, error
        self.sent: list[Any] = []
        self.link = SimpleNamespace(drained=False)
        self.drains = 0

    async def send(self, message: Any, seconds: float, option: str) -> None:
        assert (seconds, option) == (5.0, OPTION)
        if self.error is not None:
            raise self.error
        self.sent.append(message)

    async def drain(self, seconds: float, option: str) -> None:
        self.drains += 1
        if self.error is not None:
            raise self.error

    async def receive(self, wanted: tuple[type, ...], seconds: float, option: str) -> Any:
        assert (seconds, option) == (5.0, OPTION)
        return wanted

    def write(self, message: Any) -> None:
        self.sent.append(message)


class Membership:
    """Records the lost members, with the arguments."""

    def __init__(self) -> None:
        self.lost: list[tuple[str, bool, bool]] = []
        self.costs: list[tuple[str, float]] = []
        self.returns = SimpleNamespace(lost=lambda *what: self.costs.append(what))
        self.pace = SimpleNamespace(stood_still=4.0)

    async def lose(self, member: Any, error: AsyncDMTLError, *, back: bool, excluded: bool) -> None:
        self.lost.append((member.name, back, excluded))


def member(name: str = "w0", **connection: Any) -> Any:
    # Members are keys of mappings, as those of the server are.
    class Double:
        current = True
        exchanges = False
        behind = ()

    made: Any = Double()
    made.name, made.connection, made.stands_for = name, Connection(**connection), (name,)
    return made


@pytest.fixture
def noted() -> list[tuple[str, str, str]]:
    return []


@pytest.fixture
def peers(noted: list[tuple[str, str, str]]) -> Peers:
    progress: Any = SimpleNamespace(round=3, note=lambda *what: noted.append(what))
    membership: Any = Membership()
    return Peers(membership, progress, 5.0)


def lost(peers: Peers) -> list[tuple[str, bool, bool]]:
    membership: Any = peers.membership
    return membership.lost  # type: ignore[no-any-return]


async def answer(value: int | BaseException) -> int:
    if isinstance(value, BaseException):
        raise value
    return value


async def test_all_answers_come_in_the_order_of_the_members(peers: Peers) -> None:
    one, other = member("w1"), member("w0")
    assert await peers.ask_all({one: answer(1), other: answer(2)}) == [1, 2]


async def test_rows_can_be_lacking_only_where_they_travel_between_workers(peers: Peers) -> None:
    one = member()
    assert await peers.receive(one, Uplink) == (Uplink,)  # type: ignore[comparison-overlap]
    one.exchanges = True
    assert await peers.receive(one, Uplink) == (Uplink, RowsLacking)  # type: ignore[comparison-overlap]


async def test_a_member_that_lacks_rows_is_not_lost(peers: Peers) -> None:
    lacking, other = member("w0"), member("w1")
    told = RowsLacking(0, 1, "cannot reach worker 'w2'")
    assert await peers.hear({lacking: answer(LackingError(told)), other: answer(2)}) == {other: 2}
    assert (peers.lacking, lost(peers), lacking.current) == ({lacking: told}, [], False)
    lacking.exchanges = True
    lacking.connection.receive = lambda *_: asyncio.sleep(0, told)
    with pytest.raises(LackingError, match="cannot reach worker 'w2'"):
        await peers.receive(lacking, Uplink)


async def test_a_member_that_fails_is_lost_and_the_others_are_heard(
    peers: Peers, noted: list[tuple[str, str, str]]
) -> None:
    one, other = member("w0", lost=True), member("w1")
    assert await peers.hear({one: answer(LOST), other: answer(2)}) == {other: 2}
    assert lost(peers) == [("w0", True, False)]
    assert noted == [("w0", "LinkError", "reset")]
    membership: Any = peers.membership
    assert membership.costs == [("w0", 4.0)]
    assert not one.current
    with pytest.raises(ReplanError):
        await peers.ask_all({one: answer(LOST), other: answer(2)})


async def test_a_defect_of_the_server_is_no_fault_of_a_member(peers: Peers) -> None:
    with pytest.raises(ZeroDivisionError):
        await peers.hear({member(): answer(ZeroDivisionError())})
    assert lost(peers) == []


@pytest.mark.parametrize(
    ("error", "connected", "back", "excluded"),
    [
        (LOST, False, True, False),
        (LATE, True, False, True),
        (CORRUPTED, True, True, False),
        (DisagreementError("odd", odd={"w0": ["p0"]}), True, False, True),
        (RemoteProtocolError("odd"), False, True, False),
        (PeerError("bad data", exit_code=2), False, False, False),
        (PeerError("it crashed"), False, True, False),
    ],
)
async def test_who_is_not_to_blame_may_come_back(
    error: AsyncDMTLError, connected: bool, back: bool, excluded: bool, peers: Peers
) -> None:
    gone = member(lost=not connected)
    await peers.lose(gone, error)
    assert lost(peers) == [("w0", back, excluded)]
    assert (peers.absent.until([], 1.0) > 0.0) == back


async def test_a_worker_that_breaks_rules_again_and_again_may_not_come_back(peers: Peers) -> None:
    for _ in range(MOST_OFFENCES):
        await peers.lose(member(lost=True), RemoteProtocolError("odd"))
    assert [back for _, back, _ in lost(peers)] == [True] * (MOST_OFFENCES - 1) + [False]


async def test_a_worker_that_is_lost_all_the_time_in_one_round_may_not_come_back(
    peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "LOSING_SECONDS", 0.0)
    for _ in range(losses.MOST_LOSSES):
        await peers.lose(member(lost=True), LOST)
    assert [back for _, back, _ in lost(peers)] == [True] * (losses.MOST_LOSSES - 1) + [False]


async def test_corrupted_bytes_are_no_offence(peers: Peers) -> None:
    for _ in range(2 * MOST_OFFENCES):
        await peers.lose(member(lost=True), CorruptionError("noise"))
    assert {back for _, back, _ in lost(peers)} == {True}


async def test_what_cannot_be_sent_shows_later(peers: Peers) -> None:
    one, other = member("w0", error=LOST), member("w1")
    message = Finish()
    await peers.send_all({one: message, other: message})
    assert other.connection.sent == [message]
    await peers.drain([one, other])
    assert (one.connection.drains, other.connection.drains) == (1, 1)
    with pytest.raises(ZeroDivisionError):
        await peers.send_all({member(error=ZeroDivisionError()): message})


async def test_only_members_that_still_take_are_waited_for_and_written_to(peers: Peers) -> None:
    drained, gone = member(), member(lost=True)
    drained.connection.link.drained = True
    await peers.drain([drained])
    assert drained.connection.drains == 0
    for each in (drained, gone):
        peers.write(each, Finish())
    assert (len(drained.connection.sent), len(gone.connection.sent)) == (1, 0)
