from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from support.groups import LOOPBACK, free_group
from support.members import make_member
from support.problems import make_partitions, make_settings, run_options
from support.trees import PATIENCE, SITES, grow, trees

from asyncdmtl.digests import UNKEYED
from asyncdmtl.learning.training import train
from asyncdmtl.relay.attachment import Attachment
from asyncdmtl.relay.options import RelayOptions
from asyncdmtl.server import multicast_server
from asyncdmtl.server.records import MulticastOptions, RoundRecord
from asyncdmtl.worker import multicast_client
from asyncdmtl.worker.options import WorkerOptions


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


@pytest.mark.parametrize("strategy", ["relay", "central", "uncoded"])
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
    partitions = make_partitions(6, "squared", features=60_000)
    twin = train(partitions, settings).models
    assert {each.coef_.tobytes() for each in models} == {twin.coef_.tobytes()}
    assert record.multicast is not None
    # Both relays received rows from the group.
    assert {"north", "south"} <= set(record.multicast.receptions)
    assert record.multicast.sent_bytes > 0
