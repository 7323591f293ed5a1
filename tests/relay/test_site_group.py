"""Relays with a multicast group of their own, on the loopback."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from support.groups import LOOPBACK, free_group
from support.problems import make_partitions, make_settings, run_options
from support.trees import PATIENCE, SITES, trees

from asyncdmtl.learning.training import train
from asyncdmtl.relay.site_group import SiteGroup
from asyncdmtl.server import multicast_server
from asyncdmtl.server.multicast_server import GROUP
from asyncdmtl.server.records import MulticastOptions
from asyncdmtl.worker import multicast_client

# Numbers of a vector: a few ranges.
FEATURES = 60_000


@pytest.mark.parametrize(
    ("strategy", "above"), [("relay", False), ("central", False), ("uncoded", True), ("relay", True)]
)
async def test_workers_take_rows_from_the_group_of_their_relay(
    monkeypatch: pytest.MonkeyPatch, strategy: str, above: bool
) -> None:
    monkeypatch.setattr(multicast_client, "PROBE_SECONDS", PATIENCE)
    monkeypatch.setattr(multicast_server, "ANSWER_SECONDS", PATIENCE)

    def group() -> MulticastOptions:
        return MulticastOptions(free_group(), LOOPBACK, 1e10)

    settings = make_settings(rounds=2)
    options = run_options(
        settings=settings, strategy=strategy, workers=5, multicast=group() if above else None
    )
    async with trees(options, features=FEATURES) as (cluster, tree):
        await tree.relay("north", 2, multicast=group())
        await tree.relay("south", 2)
        for name in SITES:
            tree.worker(name)
        await cluster.server
        models = [await tree.tasks[name] for name in SITES]
        await tree.tasks["north"]
    twin = train(make_partitions(6, "squared", features=FEATURES), settings).models
    assert {each.coef_.tobytes() for each in models} == {twin.coef_.tobytes()}
    below = tree.relays["north"].below
    sent = {entry.worker for entry in below.entries() if entry.kind == "downlink" and entry.payload}
    assert GROUP in sent
    assert GROUP not in tree.relays["south"].below.workers()


async def test_a_round_that_is_not_complete_holds_no_new_plan_up() -> None:
    calls: list[str] = []

    class Multicast:
        """Records what it is asked to do."""

        def __getattr__(self, name: str) -> Any:
            async def asked(*_: object) -> None:
                calls.append(name)

            return asked if name != "ready" else lambda count: calls.append(name)

    nothing: Any = Multicast()
    side: Any = SimpleNamespace(down_ranges=(slice(0, 3), slice(3, 6)), grouped=False, plan=None)
    group = SiteGroup(nothing)
    await group.begin(0, 0, side, [])
    group.ready(1)
    await group.follow(side, [], 1.0)
    assert calls == ["begin", "ready", "stop"]
    calls.clear()
    await group.begin(1, 0, side, [])
    group.ready(1)
    group.ready(2)
    await group.follow(side, [], 1.0)
    assert calls == ["begin", "ready", "ready", "settle", "stop"]
