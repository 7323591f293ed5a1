from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.members import Script

from asyncdmtl.arrays import Bytes
from asyncdmtl.errors import RemoteProtocolError
from asyncdmtl.exchange.upload import Layout
from asyncdmtl.protocol.messages.registry import MoreRows, Uplink
from asyncdmtl.server.membership import Membership
from asyncdmtl.server.peers import Peers, ReplanError
from asyncdmtl.server.row_collection import RowCollection
from asyncdmtl.server.training_progress import TrainingProgress

PROBLEM: Any = None


def rows(count: int) -> Bytes:
    return np.arange(count, dtype=np.uint8)


class Side:
    """A server's side that expects two rows of three bytes, and one of two bytes in the second range."""

    asks_for_the_end = False

    ranges = (slice(0, 3), slice(3, 5))

    def uplink_range(self, worker: int, i: int) -> tuple[int, int]:
        return 2, (3, 2)[i]

    def layout(self, worker: int) -> Layout:
        return Layout(np.dtype(np.float64), 2, 1, measures=True, state=True)

    def check(self, worker: int, upload: Any) -> None:
        assert upload.size == 10


class Assignment:
    """Two members under plan 4."""

    number, side = 4, Side()

    def __init__(self, *members: Any) -> None:
        self.members = members


def collecting() -> tuple[RowCollection, list[Script], list[str]]:
    scripts, noted = [Script("a"), Script("b")], list[str]()
    progress = TrainingProgress("run", PROBLEM, "relay", lambda event: None)
    peers = Peers(Membership(), progress, 5.0)
    assignment: Any = Assignment(*(script.member for script in scripts))
    return RowCollection(peers, assignment, 7, lambda member, *_: noted.append(member.name)), scripts, noted


def uplink(round_: int = 7, size: int = 6) -> Uplink:
    return Uplink(4, round_, bytes(range(32)) + b"s" * 16 + struct.pack("<3d", 0.5, 1.0, 2.0), rows(size), 4)


async def test_the_rows_of_all_members_are_collected_range_by_range() -> None:
    collection, scripts, noted = collecting()
    for script in scripts:
        script.says(uplink(), MoreRows(4, 7, (), rows(4)))
    first, second = await collection.uploads()
    assert first is not None
    assert second is not None
    assert (first.digests, first.losses, first.state) == (
        (bytes(range(16)), bytes(range(16, 32))),
        (0.5,),
        b"s" * 16,
    )
    assert first.rows[0].shape == (2, 3)
    assert [part is not None and part.shape for part in await collection.range(1)] == [(2, 2), (2, 2)]
    assert noted == ["a", "b"]
    await collection.end()


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (uplink(6), "sent round 6 of plan 4 in round 7 of plan 4"),
        (uplink(size=5), "sent 5 bytes of rows"),
        (replace(uplink(), told=bytes(71)), "received 71 bytes of digests and numbers, the plan says 72"),
    ],
    ids=["round", "size", "told"],
)
async def test_an_upload_that_does_not_fit_costs_the_member_its_place(wrong: Uplink, complaint: str) -> None:
    collection, scripts, _ = collecting()
    scripts[0].says(wrong)
    scripts[1].says(uplink())
    with pytest.raises(ReplanError):
        await collection.uploads()
    lost = scripts[0].member.lost
    assert isinstance(lost, RemoteProtocolError)
    assert complaint in str(lost)
    assert scripts[1].member.lost is None
