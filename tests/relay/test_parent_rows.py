from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.members import make_member

from asyncdmtl.errors import RemoteProtocolError
from asyncdmtl.protocol.messages.registry import AfterRound, Assign, Downlink, MoreRows, StateTransfer
from asyncdmtl.relay.parent_rows import ParentRows
from asyncdmtl.worker.participation import NewPlan

LIMIT = 600.0, "--round-timeout"

# Two ranges of three bytes.
SIDE: Any = SimpleNamespace(
    down_ranges=(slice(0, 3), slice(3, 6)), received_bytes=6, received_range=lambda i: 3
)


class Group:
    """A group from which the ranges in `here` have come."""

    follows_plan = True

    def __init__(self, *here: int) -> None:
        self.here = set(here)

    def has(self, i: int) -> bool:
        return i in self.here

    async def complete(self, i: int) -> None:
        assert not self.has(i)
        self.here.add(i)

    def hand_out(self, i: int) -> Any:
        return np.full(3, i, np.uint8)


def downlink(rows: int, rest: int, *, grouped: bool = False) -> Downlink:
    body = np.arange(rows, dtype=np.uint8)
    return Downlink(0, 4, AfterRound.GO_ON, b"", body=body, rest=rest, grouped=grouped)


def plan(round_: int) -> Assign:
    return Assign(1, round_, False, StateTransfer.KEEP, {}, b"", ())


async def test_rows_come_over_the_connection_range_by_range() -> None:
    connection = make_member("server").connection
    rows = ParentRows(connection, downlink(3, 3), SIDE, None, LIMIT)
    assert (await rows.decodable(0, await rows.arrived(0))).tolist() == [0, 1, 2]
    connection.inbox.put(MoreRows(0, 4, body=np.full(3, 9, np.uint8)))
    assert (await rows.decodable(1, await rows.arrived(1))).tolist() == [9, 9, 9]
    connection.inbox.put(plan(4))
    with pytest.raises(NewPlan):
        await rows.arrived(1)


async def test_rows_come_from_the_group_unless_a_plan_replaces_the_round() -> None:
    connection, group = make_member("server").connection, Group()
    kept: Any = group
    rows = ParentRows(connection, downlink(0, 0, grouped=True), SIDE, kept, LIMIT)
    assert (await rows.arrived(0)).size == 0
    assert (await rows.decodable(0, await rows.arrived(0))).tolist() == [0, 0, 0]
    connection.inbox.put(plan(4))
    group.here = {1}
    # What is here already is decoded, although a plan has come.
    assert (await rows.decodable(1, await rows.arrived(1))).tolist() == [1, 1, 1]
    group.here = set()
    with pytest.raises(NewPlan):
        await rows.decodable(1, await rows.arrived(1))


async def test_rows_that_the_plan_does_not_know_are_refused() -> None:
    connection = make_member("server").connection
    with pytest.raises(RemoteProtocolError, match="sends 5 bytes of rows, the plan says 6"):
        ParentRows(connection, downlink(3, 2), SIDE, None, LIMIT)
    with pytest.raises(RemoteProtocolError, match="a group that is not listened to"):
        ParentRows(connection, downlink(0, 0, grouped=True), SIDE, None, LIMIT)
