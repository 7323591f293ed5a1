from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.groups import LOOPBACK, free_group
from support.members import make_member
from support.problems import make_partitions, make_settings, run_options
from support.trees import PATIENCE, SITES, grow, parts_of, trees

from asyncdmtl.digests import UNKEYED
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.training import train
from asyncdmtl.protocol.messages.registry import (
    AfterRound,
    Assign,
    Done,
    Downlink,
    Message,
    MoreRows,
    StateTransfer,
)
from asyncdmtl.relay import attachment
from asyncdmtl.relay.attachment import Attachment
from asyncdmtl.relay.options import RelayOptions
from asyncdmtl.server import multicast_server
from asyncdmtl.server.records import MulticastOptions, RoundRecord
from asyncdmtl.worker import multicast_client
from asyncdmtl.worker.options import WorkerOptions
from asyncdmtl.worker.participation import NewPlan

# Two ranges of three bytes, of one row in each direction.
RANGES = slice(0, 3), slice(3, 6)
ROW = np.zeros((1, 3), np.uint8)
SETTINGS = make_settings()
PROBLEM = Problem(SETTINGS, [part.info(SETTINGS) for part in make_partitions(2, "squared")])


def assign(plan: int, first: StateTransfer = StateTransfer.KEEP, *, over: bool = False) -> Assign:
    return Assign(plan, 4, over, first, {}, b"", ())


class Double:
    """The nodes of a relay, and its side: whatever a relay asks of them, they have at once."""

    streams = True
    trainer = None
    ranges = down_ranges = RANGES
    received_bytes = sent_bytes = 6
    received_range = staticmethod(lambda i: 3)
    layout = SimpleNamespace(pack=lambda upload: b"")
    state_bytes = staticmethod(lambda problem: problem.state_bytes)
    members = ()
    round = 4

    def __init__(self, *, over: bool = False) -> None:
        self.over = over

    async def assign(self, *order: object) -> Any:
        return ROW if StateTransfer.GIVE in order else None

    async def restore(self, *_: object) -> None:
        """Done, as what follows."""

    send_range = send_all = refuse_unserved = restore

    async def unchanged(self, work: Awaitable[Any]) -> Any:
        return await work

    async def done(self, side: Any) -> Done:
        return Done(0, b"")

    async def rows(self, *_: object) -> Sequence[Any]:
        return [ROW]

    async def uploads(self, side: Any) -> Sequence[Any]:
        return [SimpleNamespace(rows=(ROW, ROW))]

    def put(self, i: int, rows: Sequence[Any]) -> Any:
        return rows[0]

    def check(self, *_: object) -> None:
        """All is well, as in all that follow."""

    check_own = take = receive = finish = check


def attached(double: Any) -> tuple[Attachment, Any, list[Message]]:
    """A relay that follows a plan, its connection to the parent, and what it sends there."""
    connection: Any = make_member("r").connection
    sent: list[Message] = []
    connection.write = sent.append
    connection.link._writable.set()
    gathering: Any = SimpleNamespace(strategy="relay", blind=False)
    part = Attachment(connection, RelayOptions(WorkerOptions("r"), 1), gathering, UNKEYED, lambda: None)
    part._site, part._plan = double, 0
    return part, connection, sent


async def test_only_the_start_is_limited_by_the_timeout_for_the_start() -> None:
    """A round may take longer, up to its own limit."""
    options = RelayOptions(WorkerOptions("r", start_timeout=1e-9), 1)
    nothing: Any = None
    part = Attachment(make_member("r").connection, options, nothing, UNKEYED, lambda: None)

    async def work() -> int:
        # Timers of the past are due at the next turn of the event loop.
        for _ in range(9):
            await asyncio.sleep(0)
        return 7

    assert await part._or_new_plan(work()) == 7


@pytest.mark.parametrize(
    ("first", "look"),
    [
        (assign(0), 2),
        (assign(0, StateTransfer.GIVE), 1),
        (assign(0, StateTransfer.TAKE), 1),
        (assign(0, over=True), 2),
    ],
    ids=["rows", "state", "ready for a state", "end"],
)
async def test_nothing_is_sent_under_a_plan_that_was_replaced_at_the_last_moment(
    monkeypatch: pytest.MonkeyPatch, first: Assign, look: int
) -> None:
    """The new plan comes after the relay has looked for one while it waited for its nodes."""
    double = Double(over=first.over)
    part, connection, sent = attached(double)
    followed: list[int] = []
    looks: list[object] = []

    class FollowedError(Exception):
        """The relay follows the new plan."""

    def sides(assigned: Assign, *_: object) -> tuple[Any, Any]:
        followed.append(assigned.plan)
        if assigned.plan:
            raise FollowedError
        return double, PROBLEM

    async def joined() -> Assign:
        return first

    async def looked(work: Awaitable[Any]) -> Any:
        looks.append(found := await work)
        if len(looks) == look:
            connection.inbox.put(assign(1))
        return found

    async def agreed(*given: Any) -> Any:
        return given[-1][0]

    monkeypatch.setattr(attachment, "_sides", sides)
    monkeypatch.setattr(attachment, "_agreed", agreed)
    monkeypatch.setattr(part, "_join", joined)
    monkeypatch.setattr(part, "_or_new_plan", looked)
    with pytest.raises(FollowedError):
        await part.run()
    assert followed == [0, 1]
    assert sent == []


async def test_further_rows_are_not_sent_under_a_plan_that_was_replaced() -> None:
    double: Any = Double()
    part, connection, sent = attached(double)
    connection.inbox.put(assign(1))
    with pytest.raises(NewPlan):
        await part._send_up(double, [asyncio.Event() for _ in RANGES])
    # Another task has it already, in the other direction.
    assert not connection.inbox
    await part._send_up(double, [asyncio.Event() for _ in RANGES])
    assert sent == []


@pytest.mark.parametrize("read", [False, True], ids=["behind rows", "first"])
async def test_a_relay_that_sends_no_rows_finishes_its_round_before_the_plan_for_the_next_one(
    read: bool,
) -> None:
    """The server waits for none of its rows, and may have made the round before the nodes' rows are here."""
    double: Any = Double()
    double.put = lambda i, rows: ROW[:0]
    part, connection, sent = attached(double)
    newer = Assign(1, 5, False, StateTransfer.KEEP, {}, b"", ())
    for message in [newer] if read else [MoreRows(0, 4, body=ROW[0]), newer]:
        connection.inbox.put(message)
    arrived = [asyncio.Event() for _ in RANGES]
    await part._send_up(double, arrived)
    assert arrived[1].is_set()
    assert connection.inbox.find(Assign) is newer
    assert sent == []


async def test_rows_are_waited_for_while_the_parent_may_give_up_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    double: Any = Double()
    part, connection, _ = attached(double)
    due = [Downlink(0, 4, AfterRound.GO_ON, b"", body=ROW[0], rest=3), MoreRows(0, 4, body=ROW[0])]
    waits: list[tuple[float, str]] = []

    async def receive(wanted: object, *limit: Any) -> Message:
        waits.append(limit)
        return due.pop(0)

    monkeypatch.setattr(connection, "receive", receive)
    arrived = [asyncio.Event() for _ in RANGES]
    for event in arrived:
        event.set()
    assert await part._hand_down(double, arrived) is AfterRound.GO_ON
    assert waits == [WorkerOptions("r").reply_limit] * 2


async def test_relays_follow_new_plans_and_give_states(tmp_path: Path) -> None:
    options = run_options(
        settings=make_settings(rounds=9), workers=5, checkpoint=tmp_path / "c", checkpoint_every=2
    )
    async with trees(options) as (cluster, tree):
        await grow(tree)
        await cluster.event(RoundRecord, round=3)
        # The worker that has no relay comes back without a state, which some relay's worker gives.
        await tree.stop("e")
        tree.worker("e")
        record = await cluster.server
        models = [await tree.tasks[name] for name in SITES]
    assert len({each.coef_.tobytes() for each in models}) == 1
    kinds = record.ledger.kinds()
    # Members give the state of the training for checkpoints: every second round but the last one.
    assert kinds["up", "snapshot"][0] >= 3
    assert kinds["down", "restore"][0] >= 1


@pytest.mark.parametrize("strategy", ["relay", "central", "personal", "uncoded"])
async def test_relays_take_rows_from_a_multicast_group(
    monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    monkeypatch.setattr(multicast_client, "PROBE_SECONDS", PATIENCE)
    monkeypatch.setattr(multicast_server, "ANSWER_SECONDS", PATIENCE)
    group = MulticastOptions(free_group(), LOOPBACK, 1e10)
    settings = make_settings(rounds=2)
    options = run_options(settings=settings, strategy=strategy, workers=5, multicast=group)
    async with trees(options, features=60_000) as (cluster, tree):
        await grow(tree)
        record = await cluster.server
        models = [await tree.tasks[name] for name in SITES]
    twin = train(make_partitions(6, "squared", features=60_000), settings).models
    assert parts_of(twin, models, own=strategy == "personal")
    assert record.multicast is not None
    # Both relays received rows from the group.
    assert {"north", "south"} <= set(record.multicast.receptions)
    assert record.multicast.sent_bytes > 0
