from __future__ import annotations

import asyncio
from typing import Any, cast

import numpy as np
import pytest
from support.members import Script

from asyncdmtl.arrays import Bytes
from asyncdmtl.errors import LinkError, WaitError
from asyncdmtl.exchange.upload import Layout
from asyncdmtl.protocol.messages.registry import MoreRows, Uplink
from asyncdmtl.server.believed_states import BelievedStates
from asyncdmtl.server.first_rows import FirstRows
from asyncdmtl.server.lateness import Lateness
from asyncdmtl.server.membership import Membership
from asyncdmtl.server.peers import Peers, ReplanError
from asyncdmtl.server.state_requests import StateRequests
from asyncdmtl.server.training_progress import TrainingProgress

PROBLEM: Any = None


def rows(count: int) -> Bytes:
    return np.arange(count, dtype=np.uint8)


class Side:
    """A server's side that expects a row of three bytes, and of two bytes in the second range."""

    ranges = (slice(0, 3), slice(3, 5))

    def uplink_range(self, worker: int, i: int) -> tuple[int, int]:
        return 1, (3, 2)[i]

    def uplink_bytes(self, worker: int) -> int:
        return 5

    def layout(self, worker: int) -> Layout:
        return Layout(np.dtype(np.float64), measures=True)

    def check(self, worker: int, upload: Any) -> None:
        assert upload.size == 5


class Plan:
    """A plan that tolerates one silent worker."""

    silent = 1


class Assignment:
    """Three members under plan 4."""

    number, side, plan = 4, Side(), Plan()

    def __init__(self, *members: Any) -> None:
        self.members = members


class Round:
    """Round 7 of three members, of which the server waits for two."""

    def __init__(self, limit: float = 5.0) -> None:
        self.scripts = [Script(name) for name in "abc"]
        progress = TrainingProgress("run", PROBLEM, "relay", lambda event: None)
        self.peers = Peers(Membership(), progress, limit)
        self.assignment = Assignment(*(script.member for script in self.scripts))
        self.lateness = Lateness()
        self.requests = StateRequests(progress, self.peers, BelievedStates(progress), self.lateness)
        self.lateness.begin(cast(Any, self.assignment), 7, asyncio.get_running_loop().time())
        self.collection = self.make(7)

    def make(self, number: int) -> FirstRows:
        assignment = cast(Any, self.assignment)
        return FirstRows(self.peers, assignment, number, lambda *_: None, self.lateness, self.requests)

    def says(self, k: int, *messages: Any) -> None:
        self.scripts[k].says(*messages)


def uplink(round_: int = 7, body: int = 3, rest: int = 2) -> Uplink:
    return Uplink(4, round_, bytes(16), rows(body), rest)


def more(round_: int = 7) -> MoreRows:
    return MoreRows(4, round_, (), rows(2))


async def test_the_first_two_of_three_suffice() -> None:
    made = Round()
    made.says(0, uplink())
    made.says(2, uplink(), more())
    uploads = await made.collection.uploads()
    assert [upload is None for upload in uploads] == [False, True, False]
    assert made.lateness.late_rounds == {"b": 1}
    made.says(0, more())
    assert [part is None for part in await made.collection.range(1)] == [False, True, False]
    await made.collection.end()
    assert all(script.member.lost is None for script in made.scripts)


async def test_a_late_member_takes_the_place_of_one_that_stops_within_a_round() -> None:
    made = Round()
    made.says(0, uplink())
    made.says(2, uplink(), more())
    await made.collection.uploads()
    made.says(1, uplink(), more())
    assert [part is None for part in await made.collection.range(1)] == [True, False, False]
    # Its upload has not been compared yet.
    assert [(late.worker, late.round) for late in made.lateness.uploads] == [(1, 7)]
    await made.collection.end()


async def test_rows_of_earlier_rounds_are_counted_and_not_used() -> None:
    made = Round()
    await made.collection.end()
    later = made.make(9)
    made.says(1, uplink(7), more(7), uplink(8, 0, 0), uplink(9), more(9))
    made.says(0, uplink(9), more(9))
    uploads = await later.uploads()
    assert [upload is None for upload in uploads] == [False, False, True]
    assert made.lateness.ignored_bytes == {"b": 5}
    assert [(late.round, late.upload.rows) for late in made.lateness.uploads] == [(7, ()), (8, ())]
    await later.end()


async def test_a_member_that_is_lost_counts_as_silent_and_two_are_too_many() -> None:
    made = Round()
    made.scripts[1].member.connection.link_failed(LinkError("gone", peer="b"))
    made.says(0, uplink(), more())
    made.says(2, uplink())
    assert [upload is None for upload in await made.collection.uploads()] == [False, True, False]
    assert isinstance(made.scripts[1].member.lost, LinkError)
    made.scripts[2].member.connection.link_failed(LinkError("gone", peer="c"))
    with pytest.raises(ReplanError):
        await made.collection.range(1)
    await made.collection.end()


async def test_a_member_that_sends_nothing_for_too_long_is_lost_although_none_waits_for_it() -> None:
    made = Round(limit=0.05)
    await made.collection.end()
    await asyncio.sleep(0.06)
    made.lateness.hear(made.scripts[0].member, 6, asyncio.get_running_loop().time())
    made.lateness.hear(made.scripts[2].member, 6, asyncio.get_running_loop().time())
    made.collection = made.make(7)
    made.says(0, uplink())
    made.says(2, uplink())
    await made.collection.uploads()
    await made.collection.end()
    assert isinstance(made.scripts[1].member.lost, WaitError)


async def test_a_member_that_began_the_next_round_gives_up_its_rows_of_this_one() -> None:
    made = Round()
    made.says(1, uplink(), uplink(8))
    made.says(0, uplink(), more())
    made.says(2, uplink(), more())
    await made.collection.uploads()
    assert [part is None for part in await made.collection.range(1)] == [False, True, False]
    await made.collection.end()
    assert len(made.scripts[1].member.connection.inbox) == 1


async def test_a_member_that_knows_that_it_is_late_sends_no_rows() -> None:
    made = Round()
    made.says(0, uplink())
    made.says(2, uplink())
    await made.collection.uploads()
    made.says(1, uplink(7, 0, 0))
    made.says(0, more())
    made.says(2, more())
    assert [part is None for part in await made.collection.range(1)] == [False, True, False]
    await made.collection.end()
    assert [(late.worker, late.upload.rows) for late in made.lateness.uploads] == [(1, ())]
    assert made.scripts[1].member.lost is None
